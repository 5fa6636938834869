//! Operator, account and user of a NATS server with JWT authentication, as `nsc` and managed
//! NATS services make them (NATS documentation, "JWT", and ADR-1 for the key format).

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use nkeys::KeyPair;
use serde_json::{Value, json};

/// A trust chain made for one test.
pub(crate) struct Trust {
    operator_jwt: String,
    system: Account,
    account: Account,
}

struct Account {
    keys: KeyPair,
    jwt: String,
}

impl Trust {
    /// A new operator with an account, and the system account that JetStream needs.
    pub(crate) fn new() -> Self {
        let operator = KeyPair::new_operator();
        let claims = json!({"type": "operator", "version": 2});
        Self {
            operator_jwt: jwt(&operator, &operator, &claims),
            system: Account::new(&operator),
            account: Account::new(&operator),
        }
    }

    /// The lines of a server's configuration that trust this operator.
    pub(crate) fn server_settings(&self) -> String {
        let (system, account) = (&self.system, &self.account);
        format!(
            "operator: \"{}\"\nsystem_account: {}\nresolver: MEMORY\n\
             resolver_preload: {{ {}: \"{}\", {}: \"{}\" }}\n",
            self.operator_jwt,
            system.keys.public_key(),
            system.keys.public_key(),
            system.jwt,
            account.keys.public_key(),
            account.jwt,
        )
    }

    /// The text of a `.creds` file of a new user.
    pub(crate) fn user_creds(&self) -> String {
        let user = KeyPair::new_user();
        let claims = json!({
            "type": "user", "version": 2, "subs": -1, "data": -1, "payload": -1
        });
        let jwt = jwt(&self.account.keys, &user, &claims);
        let seed = user.seed().unwrap();
        format!(
            "-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n\
             -----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
        )
    }
}

impl Account {
    fn new(operator: &KeyPair) -> Self {
        let keys = KeyPair::new_account();
        let limits = json!({
            "subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1,
            "wildcards": true, "conn": -1, "leaf": -1
        });
        let claims = json!({"type": "account", "version": 2, "limits": limits});
        let jwt = jwt(operator, &keys, &claims);
        Self { keys, jwt }
    }
}

fn jwt(issuer: &KeyPair, subject: &KeyPair, claims: &Value) -> String {
    let header = json!({"typ": "JWT", "alg": "ed25519-nkey"});
    let payload = json!({
        "jti": "test", "iat": 1, "iss": issuer.public_key(), "name": "test",
        "sub": subject.public_key(), "nats": claims
    });
    let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!("{}.{}", encode(&header), encode(&payload));
    let signature = URL_SAFE_NO_PAD.encode(issuer.sign(signed.as_bytes()).unwrap());
    format!("{signed}.{signature}")
}
