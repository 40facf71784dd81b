//! Tokens of service accounts: JSON web tokens (RFC 7519), signed with a key that only this server has (HS256).

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};
use ring::hmac;
use serde_json::{Value, json};

/// What tokens say of their issuer and of whom they are for, as in a cluster of kubeadm's.
pub(crate) const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

/// The account that a token is for. Another one of that name, made later, has another uid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Account {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) uid: String,
}

/// Issues and reads tokens.
#[derive(Debug)]
pub(crate) struct Tokens {
    key: hmac::Key,
}

impl Tokens {
    /// With the same secret, tokens stay good over a restart of the server.
    pub(crate) fn new(secret: &str) -> Self {
        Self {
            key: hmac::Key::new(
                hmac::HMAC_SHA256,
                format!("service account tokens: {secret}").as_bytes(),
            ),
        }
    }

    /// A token that is good until `end`; both times are seconds since 1970.
    pub(crate) fn issue(&self, account: &Account, now: i64, end: i64) -> String {
        let Account { namespace, name, uid } = account;
        let claims = json!({
            "aud": [ISSUER], "iss": ISSUER, "sub": format!("system:serviceaccount:{namespace}:{name}"),
            "iat": now, "nbf": now, "exp": end,
            "kubernetes.io": {"namespace": namespace, "serviceaccount": {"name": name, "uid": uid}},
        });
        let head = json!({"alg": "HS256", "typ": "JWT"});
        let signed = format!(
            "{}.{}",
            BASE64.encode(head.to_string()),
            BASE64.encode(claims.to_string())
        );
        let signature = BASE64.encode(hmac::sign(&self.key, signed.as_bytes()));
        format!("{signed}.{signature}")
    }

    /// The account of a token of ours that has not ended.
    pub(crate) fn read(&self, token: &str, now: i64) -> Option<Account> {
        let (signed, signature) = token.rsplit_once('.')?;
        let signature = BASE64.decode(signature).ok()?;
        hmac::verify(&self.key, signed.as_bytes(), &signature).ok()?;
        let (_, claims) = signed.split_once('.')?;
        let claims: Value = serde_json::from_slice(&BASE64.decode(claims).ok()?).ok()?;
        if claims["exp"].as_i64()? <= now {
            return None;
        }
        let own = &claims["kubernetes.io"];
        let text = |value: &Value| value.as_str().map(str::to_owned);
        Some(Account {
            namespace: text(&own["namespace"])?,
            name: text(&own["serviceaccount"]["name"])?,
            uid: text(&own["serviceaccount"]["uid"])?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_good_until_it_ends_and_only_as_it_was_issued() {
        let account = Account {
            namespace: "a".into(),
            name: "b".into(),
            uid: "c".into(),
        };
        let tokens = Tokens::new("secret");
        let token = tokens.issue(&account, 100, 200);
        assert_eq!(tokens.read(&token, 199), Some(account));
        assert_eq!(tokens.read(&token, 200), None, "ended");
        assert_eq!(Tokens::new("other").read(&token, 100), None, "of another server");
        let mut parts: Vec<&str> = token.split('.').collect();
        let other =
            BASE64.encode(r#"{"exp":300,"kubernetes.io":{"namespace":"a","serviceaccount":{"name":"x","uid":"y"}}}"#);
        parts[1] = &other;
        assert_eq!(tokens.read(&parts.join("."), 100), None, "changed");
        assert_eq!(tokens.read("a.b.c", 100), None);
        assert_eq!(tokens.read("", 100), None);
    }
}
