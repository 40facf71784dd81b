use proptest::prelude::*;

use super::*;

fn matches(text: &str, labels: &[(&str, &str)]) -> bool {
    Selector::parse(text).unwrap().matches(labels)
}

#[test]
fn every_form() {
    let labels: &[(&str, &str)] = &[("role", "web-1"), ("pcns.env", "prod"), ("a.b/c-d_e", ""), ("has", "x")];
    for (text, expected) in [
        ("", true),
        ("  ", true),
        ("all()", true),
        ("all( )", true),
        ("global()", true),
        ("!all()", false),
        ("has(role)", true),
        ("has( role )", true),
        ("!has(role)", false),
        ("!!has(role)", true),
        ("has(other)", false),
        ("has(a.b/c-d_e)", true),
        ("role == 'web-1'", true),
        ("role=='web-1'", true),
        ("role == \"web-1\"", true),
        ("role == 'web'", false),
        ("role != 'web'", true),
        ("other != 'web'", true),
        ("other == ''", false),
        ("a.b/c-d_e == ''", true),
        ("role in {'a','web-1'}", true),
        ("role in {}", false),
        ("role in {'web-1',}", true),
        ("role in{ 'a' }", false),
        ("other in {'a'}", false),
        ("role not in {'a', 'b'}", true),
        ("role notin {'web-1'}", false),
        ("other not in {'a'}", true),
        ("role contains 'eb'", true),
        ("role starts with 'web'", true),
        ("role ends with '-1'", true),
        ("role ends with 'web'", false),
        ("other contains ''", false),
        ("has == 'x'", true),
        ("pcns.env == 'prod' && !role == 'x'", true),
        ("has(x) && has(y) || has(role)", true),
        ("has(x) && (has(y) || has(role))", false),
        ("!(has(x) || has(y)) && has(role)", true),
    ] {
        assert_eq!(matches(text, labels), expected, "{text}");
    }
    assert!(!matches("global()", &[(NAMESPACE_LABEL, "n")]));
}

#[test]
fn errors_point_at_the_column() {
    for (text, message) in [
        (
            "a = 'b'",
            "column 3: expected `==`, `!=`, `in`, `not in`, `contains`, `starts with` or `ends with`, found `=`",
        ),
        ("a == b", "column 6: expected a quoted string, found `b`"),
        ("a == 'b", "column 8: expected a closing quote, found the end"),
        ("a in 'b'", "column 6: expected `{`, found `'`"),
        (
            "a in {'b'",
            "column 10: expected a quoted string, `,` or `}`, found the end",
        ),
        (
            "a in {'b',,}",
            "column 11: expected a quoted string, `,` or `}`, found `,`",
        ),
        ("a in {,}", "column 7: expected a quoted string, `,` or `}`, found `,`"),
        ("has(a", "column 6: expected `)`, found the end"),
        ("has()", "column 5: expected a label, found `)`"),
        ("all(x)", "column 5: expected `)`, found `x`"),
        ("(has(a)", "column 8: expected `&&`, `||` or `)`, found the end"),
        ("has(a) has(b)", "column 8: expected `&&`, `||` or the end, found `has`"),
        (
            "has(a) && ",
            "column 11: expected a label, `has(…)`, `all()`, `global()`, `!` or `(`, found the end",
        ),
        ("has(a) & has(b)", "column 8: expected `&&`, `||` or the end, found `&`"),
        (
            "ä == 'b'",
            "column 1: expected a label, `has(…)`, `all()`, `global()`, `!` or `(`, found `ä`",
        ),
        (
            "a == 'ä' &&& b",
            "column 12: expected a label, `has(…)`, `all()`, `global()`, `!` or `(`, found `&`",
        ),
    ] {
        let error = Selector::parse(text).unwrap_err();
        assert_eq!(error.to_string(), format!("selector `{text}`, {message}"));
    }
}

#[test]
fn depth_is_bounded() {
    let deep = format!("{}has(a){}", "(".repeat(100_000), ")".repeat(100_000));
    assert_eq!(
        Selector::parse(&deep).unwrap_err().expected,
        "at most 64 nested parentheses and negations"
    );
    assert!(Selector::parse(&"!".repeat(100_000)).is_err());
    let fine = format!("{}has(a){}", "(".repeat(60), ")".repeat(60));
    assert_eq!(Selector::parse(&fine).unwrap().to_string(), "has(a)");
}

#[test]
fn label_selectors_translate() {
    let selector: LabelSelector = serde_json::from_str(
        r#"{"matchLabels":{"app":"web"},"matchExpressions":[{"key":"t","operator":"NotIn","values":["x"]},{"key":"o","operator":"DoesNotExist"}]}"#,
    )
    .unwrap();
    assert_eq!(
        Selector::from(&selector).to_string(),
        "app == 'web' && t not in {'x'} && !has(o)"
    );
    assert_eq!(Selector::from(&LabelSelector::default()), Selector::all());
}

fn any_key() -> impl Strategy<Value = String> {
    prop_oneof!["[a-c]", "(all|has|in|not|global|pcns\\.a|x/y-z_1)"]
}

fn any_value() -> impl Strategy<Value = String> {
    prop_oneof!["[a-c]{0,2}", "[^']{0,6}", "[^\"]{0,6}"]
}

fn any_expr() -> impl Strategy<Value = Expr> {
    let set = || prop::collection::btree_set(any_value(), 0..4);
    let leaf = prop_oneof![
        Just(Expr::All),
        Just(Expr::Global),
        any_key().prop_map(Expr::Has),
        (any_key(), any_value()).prop_map(|(k, v)| Expr::Equal(k, v)),
        (any_key(), any_value()).prop_map(|(k, v)| Expr::NotEqual(k, v)),
        (any_key(), set()).prop_map(|(k, v)| Expr::In(k, v)),
        (any_key(), set()).prop_map(|(k, v)| Expr::NotIn(k, v)),
        (any_key(), any_value()).prop_map(|(k, v)| Expr::Contains(k, v)),
        (any_key(), any_value()).prop_map(|(k, v)| Expr::StartsWith(k, v)),
        (any_key(), any_value()).prop_map(|(k, v)| Expr::EndsWith(k, v)),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            inner.clone().prop_map(|x| Expr::Not(Box::new(x))),
            prop::collection::vec(inner.clone(), 2..4).prop_map(Expr::And),
            prop::collection::vec(inner, 2..4).prop_map(Expr::Or),
        ]
    })
}

proptest! {
    #[test]
    fn text_reads_back_as_the_same_selector(expr in any_expr()) {
        let selector = Selector::from(expr);
        let text = selector.to_string();
        prop_assert_eq!(Selector::parse(&text).map_err(|e| TestCaseError::fail(e.to_string()))?, selector);
    }

    #[test]
    fn no_text_panics(text in "[a-c(){}'\"!&|=, ]{0,24}|\\PC{0,24}") {
        if let Err(error) = Selector::parse(&text) {
            prop_assert!(error.column >= 1 && error.column <= text.chars().count() + 1);
        }
    }

    #[test]
    fn negation_inverts(expr in any_expr(), labels in prop::collection::btree_map("[a-c]", "[a-c]{0,2}", 0..3)) {
        let negated = Expr::Not(Box::new(expr.clone()));
        prop_assert_ne!(Selector::from(expr).matches(&labels), Selector::from(negated).matches(&labels));
    }

    #[test]
    fn a_label_selector_and_its_translation_agree(
        wanted in prop::collection::btree_map("[a-c]", "[a-c]", 0..2),
        requirements in prop::collection::vec(("[a-c]", 0usize..4, prop::collection::vec("[a-c]", 1..3)), 0..3),
        labels in prop::collection::btree_map("[a-c]", "[a-c]", 0..4),
    ) {
        let operators = [Operator::In, Operator::NotIn, Operator::Exists, Operator::DoesNotExist];
        let match_expressions = requirements
            .into_iter()
            .map(|(key, operator, values)| crate::slim::Requirement { key, operator: operators[operator], values })
            .collect();
        let selector = LabelSelector { match_labels: wanted, match_expressions };
        prop_assert_eq!(selector.matches(&labels), Selector::from(&selector).matches(&labels));
    }
}
