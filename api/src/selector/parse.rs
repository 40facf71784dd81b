//! The grammar.

use nom::branch::alt;
use nom::bytes::complete::{tag, take_while, take_while1};
use nom::character::complete::{char, multispace0};
use nom::combinator::{cut, eof, map, opt, value};
use nom::error::{ErrorKind, ParseError};
use nom::multi::separated_list1;
use nom::sequence::{delimited, preceded, terminated};
use nom::{IResult, Parser};

use super::{Expr, SelectorError};

/// Parentheses and negations nest no deeper, so that no text can exhaust the stack.
const MAX_DEPTH: usize = 64;

pub(super) fn selector(text: &str) -> Result<Expr, SelectorError> {
    if text.trim().is_empty() {
        return Ok(Expr::All);
    }
    match terminated(|input| disjunction(input, 0), end).parse(text) {
        Ok((_, expr)) => Ok(expr),
        Err(nom::Err::Error(fault) | nom::Err::Failure(fault)) => Err(fault.explain(text)),
        Err(nom::Err::Incomplete(_)) => Err(Fault {
            rest: "",
            expected: "more",
        }
        .explain(text)),
    }
}

/// How far parsing got, and what it wanted there.
#[derive(Debug)]
struct Fault<'a> {
    rest: &'a str,
    expected: &'static str,
}

impl Fault<'_> {
    fn explain(self, text: &str) -> SelectorError {
        let before = &text[..text.len() - self.rest.len()];
        let found = match self.rest.chars().next() {
            None => "the end".to_owned(),
            Some(_) => {
                let word: String = self.rest.chars().take_while(|c| is_key_char(*c)).take(32).collect();
                let shown = if word.is_empty() {
                    self.rest.chars().take(1).collect()
                } else {
                    word
                };
                format!("`{shown}`")
            }
        };
        SelectorError {
            text: text.to_owned(),
            column: before.chars().count() + 1,
            expected: self.expected,
            found,
        }
    }
}

impl<'a> ParseError<&'a str> for Fault<'a> {
    fn from_error_kind(rest: &'a str, _: ErrorKind) -> Self {
        Self {
            rest,
            expected: "something else",
        }
    }

    fn append(_: &'a str, _: ErrorKind, other: Self) -> Self {
        other
    }

    fn or(self, other: Self) -> Self {
        if other.rest.len() <= self.rest.len() {
            other
        } else {
            self
        }
    }
}

type Parsed<'a, T> = IResult<&'a str, T, Fault<'a>>;

/// Runs `parser` after white space; a failure right there is told as `expected`.
fn want<'a, T>(
    expected: &'static str,
    mut parser: impl Parser<&'a str, Output = T, Error = Fault<'a>>,
) -> impl FnMut(&'a str) -> Parsed<'a, T> {
    move |input| {
        let (start, ()) = space(input)?;
        parser.parse(start).map_err(|error| {
            error.map(|fault| {
                if fault.rest.len() == start.len() {
                    Fault { rest: start, expected }
                } else {
                    fault
                }
            })
        })
    }
}

fn space(input: &str) -> Parsed<'_, ()> {
    map(multispace0, |_| ()).parse(input)
}

fn end(input: &str) -> Parsed<'_, &str> {
    want("`&&`, `||` or the end", eof).parse(input)
}

fn disjunction(input: &str, depth: usize) -> Parsed<'_, Expr> {
    chain(input, "||", Expr::Or, |input| {
        chain(input, "&&", Expr::And, |input| negation(input, depth))
    })
}

fn chain<'a>(
    input: &'a str,
    operator: &'static str,
    join: fn(Vec<Expr>) -> Expr,
    mut operand: impl FnMut(&'a str) -> Parsed<'a, Expr>,
) -> Parsed<'a, Expr> {
    let (mut rest, first) = operand(input)?;
    let mut parts = vec![first];
    while let (after, Some(_)) = opt(preceded(space, tag(operator))).parse(rest)? {
        let (after, next) = cut(&mut operand).parse(after)?;
        parts.push(next);
        rest = after;
    }
    Ok((rest, if parts.len() == 1 { parts.remove(0) } else { join(parts) }))
}

fn negation(input: &str, depth: usize) -> Parsed<'_, Expr> {
    if depth > MAX_DEPTH {
        return Err(nom::Err::Failure(Fault {
            rest: input,
            expected: "at most 64 nested parentheses and negations",
        }));
    }
    let (input, ()) = space(input)?;
    match opt(char('!')).parse(input)? {
        (rest, Some(_)) => map(cut(|rest| negation(rest, depth + 1)), |inner| {
            Expr::Not(Box::new(inner))
        })
        .parse(rest),
        (_, None) => primary(input, depth),
    }
}

fn primary(input: &str, depth: usize) -> Parsed<'_, Expr> {
    let group = delimited(
        char('('),
        cut(|input| disjunction(input, depth + 1)),
        cut(want("`&&`, `||` or `)`", char(')'))),
    );
    want(
        "a label, `has(…)`, `all()`, `global()`, `!` or `(`",
        alt((group, call, comparison)),
    )
    .parse(input)
}

/// `has(k)`, `all()`, `global()`. Without the parenthesis these words are labels.
fn call(input: &str) -> Parsed<'_, Expr> {
    let open = |word| (tag(word), space, char('('));
    let close = || cut(want("`)`", char(')')));
    alt((
        delimited(open("has"), map(cut(want("a label", key)), Expr::Has), close()),
        value(Expr::All, (open("all"), close())),
        value(Expr::Global, (open("global"), close())),
    ))
    .parse(input)
}

fn comparison(input: &str) -> Parsed<'_, Expr> {
    let (rest, key) = key(input)?;
    let (rest, operator) = cut(want(
        "`==`, `!=`, `in`, `not in`, `contains`, `starts with` or `ends with`",
        alt((
            value(Op::Text(Expr::Equal), tag("==")),
            value(Op::Text(Expr::NotEqual), tag("!=")),
            value(Op::Text(Expr::Contains), tag("contains")),
            value(Op::Text(Expr::StartsWith), (tag("starts"), space, tag("with"))),
            value(Op::Text(Expr::EndsWith), (tag("ends"), space, tag("with"))),
            value(Op::Set(Expr::In), tag("in")),
            value(Op::Set(Expr::NotIn), (tag("not"), space, tag("in"))),
        )),
    ))
    .parse(rest)?;
    match operator {
        Op::Text(make) => map(cut(want("a quoted string", string)), |text| make(key.clone(), text)).parse(rest),
        Op::Set(make) => {
            let comma = || preceded(space, char(','));
            let listed = separated_list1(comma(), want("a quoted string or `}`", string));
            let items = map(opt(terminated(listed, opt(comma()))), Option::unwrap_or_default);
            let set = delimited(
                want("`{`", char('{')),
                items,
                want("a quoted string, `,` or `}`", char('}')),
            );
            map(cut(set), |values| make(key.clone(), values.into_iter().collect())).parse(rest)
        }
    }
}

#[derive(Clone)]
enum Op {
    Text(fn(String, String) -> Expr),
    Set(fn(String, std::collections::BTreeSet<String>) -> Expr),
}

fn key(input: &str) -> Parsed<'_, String> {
    map(take_while1(is_key_char), str::to_owned).parse(input)
}

fn is_key_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '/' | '-')
}

fn string(input: &str) -> Parsed<'_, String> {
    let within = |quote: char| {
        let text = take_while(move |c| c != quote);
        delimited(
            char(quote),
            map(text, str::to_owned),
            cut(want("a closing quote", char(quote))),
        )
    };
    alt((within('\''), within('"'))).parse(input)
}
