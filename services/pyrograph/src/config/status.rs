//! The configuration as `/api/v1/status/config` shows it.

use serde_json::Value;

use super::Config;

/// What stands for a secret.
const HIDDEN: &str = "********";

/// What the names of secrets contain.
const SECRET_WORDS: [&str; 6] =
    ["secret", "password", "token", "account_key", "customer_key", "service_account"];

/// The configuration of this process in YAML, without its secrets: all of it, its defaults, and what differs.
#[derive(Clone, Default)]
pub(crate) struct Shown {
    pub(crate) all: String,
    pub(crate) defaults: String,
    pub(crate) changed: String,
}

impl Shown {
    /// # Errors
    /// If the configuration cannot be written as YAML.
    pub(crate) fn of(config: &Config) -> Result<Self, Box<dyn std::error::Error>> {
        let tree = |config: &Config| serde_json::to_value(config).map(hide_secrets);
        let (all, defaults) = (tree(config)?, tree(&Config::default())?);
        let changed = changed(&all, &defaults).unwrap_or_else(|| Value::Object(Default::default()));
        let text = serde_yaml::to_string::<Value>;
        Ok(Self { all: text(&all)?, defaults: text(&defaults)?, changed: text(&changed)? })
    }
}

fn hide_secrets(mut tree: Value) -> Value {
    if let Value::Object(fields) = &mut tree {
        for (name, value) in fields.iter_mut() {
            let is_secret = SECRET_WORDS.iter().any(|word| name.contains(word));
            *value = match value.take() {
                Value::String(text) if is_secret && !text.is_empty() => Value::String(HIDDEN.to_owned()),
                other => hide_secrets(other),
            };
        }
    }
    tree
}

/// What of `tree` is not as in `defaults`; `None` if all of it is.
fn changed(tree: &Value, defaults: &Value) -> Option<Value> {
    match (tree, defaults) {
        (Value::Object(fields), Value::Object(known)) => {
            let differs = |(name, value): (&String, &Value)| {
                let value = changed(value, known.get(name).unwrap_or(&Value::Null))?;
                Some((name.clone(), value))
            };
            let fields: serde_json::Map<_, _> = fields.iter().filter_map(differs).collect();
            (!fields.is_empty()).then_some(Value::Object(fields))
        }
        (value, default) => (value != default).then(|| value.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_is_told_and_secrets_are_not() {
        let mut config = Config::default();
        let shown = Shown::of(&config).unwrap();
        assert_eq!(shown.changed, "{}\n");
        assert_eq!(shown.all, shown.defaults);

        config.server.http_listen_port = 1;
        config.storage.s3.secret_access_key = "hush".into();
        let shown = Shown::of(&config).unwrap();
        assert_eq!(
            shown.changed,
            "server:\n  http_listen_port: 1\nstorage:\n  s3:\n    secret_access_key: \"********\"\n"
        );
        assert!(!shown.all.contains("hush"));
        assert!(shown.defaults.contains("http_listen_port: 4040"));
    }
}
