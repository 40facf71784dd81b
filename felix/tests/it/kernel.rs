//! The engine against a kernel: real packets between namespaces that stand for pods, on both back ends.

mod connections;
mod forwarding;
mod lab;
mod permit;
mod policy;
mod probe;
mod protocols;
mod random;
mod refusals;
mod services;
mod upkeep;

/// Defines a test for each back end.
macro_rules! on_both_backends {
    ($($name:ident),+ $(,)?) => {
        $(mod $name {
            #[test]
            fn nft() {
                super::super::lab::in_lab(stringify!($name), margay_felix::dataplane::Backend::Nft, super::$name);
            }

            #[test]
            fn legacy() {
                super::super::lab::in_lab(stringify!($name), margay_felix::dataplane::Backend::Legacy, super::$name);
            }
        })+
    };
}

use on_both_backends;
