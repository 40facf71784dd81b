//! Enums that are one word in JSON.

/// Defines an enum of words with serde, schema, `FromStr`, `Display` and `as_str`. The first variant is the default.
///
/// `exact` words are an `enum` in the schema; `anycase` words are read in any case, and the empty string as the default,
/// as Calico reads these fields.
macro_rules! keywords {
    ($(#[$doc:meta])* $name:ident, $mode:ident {
        $(#[$first_doc:meta])* $first:ident = $first_text:literal,
        $($(#[$variant_doc:meta])* $variant:ident = $text:literal,)*
    }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
        pub enum $name {
            $(#[$first_doc])* #[default] $first,
            $($(#[$variant_doc])* $variant,)*
        }

        impl $name {
            /// Every word, the default first.
            pub const WORDS: &'static [&'static str] = &[$first_text, $($text,)*];

            /// The word in JSON.
            pub fn as_str(self) -> &'static str {
                match self {
                    Self::$first => $first_text,
                    $(Self::$variant => $text,)*
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl std::str::FromStr for $name {
            type Err = String;

            fn from_str(text: &str) -> Result<Self, String> {
                [Self::$first, $(Self::$variant,)*]
                    .into_iter()
                    .find(|candidate| keywords!(@same $mode, candidate.as_str(), text))
                    .or(keywords!(@empty $mode, text))
                    .ok_or_else(|| format!("\"{text}\" is not one of {}", Self::WORDS.join(", ")))
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }

        impl schemars::JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }

            fn inline_schema() -> bool {
                true
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                keywords!(@schema $mode)
            }
        }
    };
    (@same exact, $word:expr, $text:expr) => { $word == $text };
    (@same anycase, $word:expr, $text:expr) => { $word.eq_ignore_ascii_case($text) };
    (@empty exact, $text:expr) => { None };
    (@empty anycase, $text:expr) => { $text.is_empty().then(Self::default) };
    (@schema exact) => { schemars::json_schema!({"type": "string", "enum": Self::WORDS}) };
    (@schema anycase) => {
        schemars::json_schema!({"type": "string", "maxLength": 32, "pattern": format!("^(?i)({})?$", Self::WORDS.join("|"))})
    };
}
