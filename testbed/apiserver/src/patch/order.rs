//! The order of a list after a strategic merge (`apimachinery/pkg/util/strategicpatch`): what the patch names stands in
//! the patch's order, the rest keeps its place among it as far as the list before tells one.

use serde_json::Value;

/// Sorts `list`, the merged items; `wanted` is the patch's order (items, or `$setElementOrder`), `before` the list as it
/// was. Items are the same when `key` is, or altogether when there is none.
pub(super) fn arrange(list: &mut Vec<Value>, wanted: &[Value], before: &[Value], key: Option<&str>) {
    let id = |item: &Value| key.map_or_else(|| item.clone(), |k| item[k].clone());
    let place = |order: &[Value], item: &Value| order.iter().position(|o| id(o) == id(item));
    let (mut named, mut rest): (Vec<Value>, Vec<Value>) = list.drain(..).partition(|i| place(wanted, i).is_some());
    named.sort_by_key(|i| place(wanted, i));
    rest.sort_by_key(|i| place(before, i));
    let mut named = named.into_iter().peekable();
    let mut rest = rest.into_iter().peekable();
    loop {
        let earlier = match (rest.peek(), named.peek()) {
            (None, None) => return,
            (Some(_), None) => true,
            (None, Some(_)) => false,
            (Some(r), Some(n)) => place(before, r).zip(place(before, n)).is_some_and(|(r, n)| r < n),
        };
        list.extend(if earlier { rest.next() } else { named.next() });
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn new_items_come_before_those_that_only_the_server_has() {
        let arranged = |list: &[&str], wanted: &[&str], before: &[&str]| {
            let own = |l: &[&str]| l.iter().map(|s| json!(s)).collect::<Vec<_>>();
            let mut list = own(list);
            arrange(&mut list, &own(wanted), &own(before), None);
            list.iter()
                .map(|v| v.as_str().unwrap_or("").to_owned())
                .collect::<String>()
        };
        assert_eq!(arranged(&["a", "b"], &["b"], &["a"]), "ba");
        assert_eq!(arranged(&["a", "b", "c"], &["b"], &["a", "b", "c"]), "abc");
        assert_eq!(arranged(&["a", "b", "n"], &["n", "b"], &["a", "b"]), "nab");
        assert_eq!(arranged(&["a", "b", "c"], &["c", "a"], &["a", "b", "c"]), "bca");
    }
}
