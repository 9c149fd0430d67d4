//! The file with limits per tenant: read at the start, and again while the server runs.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use clock::Clock;
use limits::{Limits, Overrides};
use model::TenantId;
use serde_json::Value;
use tokio::signal::unix::Signal;
use tracing::{info, warn};

use super::RuntimeConfig;
use super::load::{LoadError, merge, yaml};

/// The limits of every tenant in the file; empty without a file.
///
/// # Errors
/// The file cannot be read, or names an unknown limit.
pub(crate) fn read(config: &RuntimeConfig, default: &Limits) -> Result<HashMap<TenantId, Limits>, LoadError> {
    let path = &config.file;
    if path.is_empty() {
        return Ok(HashMap::new());
    }
    let error = |reason: String| LoadError::File { path: path.clone(), reason };
    let text = std::fs::read_to_string(path).map_err(|e| error(e.to_string()))?;
    parse(&text, path, default)
}

fn parse(text: &str, path: &str, default: &Limits) -> Result<HashMap<TenantId, Limits>, LoadError> {
    let error = |reason: String| LoadError::File { path: path.to_owned(), reason };
    let document: Option<HashMap<String, Option<HashMap<String, Option<Value>>>>> =
        yaml(text).map_err(|e| error(e.to_string()))?;
    let mut document = document.unwrap_or_default();
    let tenants = document.remove("overrides").flatten().unwrap_or_default();
    if let Some(field) = document.keys().min() {
        let nearest = super::nearest(field, ["overrides"].into_iter());
        return Err(LoadError::UnknownField { path: path.to_owned(), field: field.clone(), nearest });
    }
    let defaults = serde_json::to_value(default).map_err(|e| error(e.to_string()))?;
    let mut all = HashMap::new();
    for (name, own) in tenants {
        let Some(own) = own else { continue };
        let tenant = TenantId::parse(&name).map_err(|e| error(format!("tenant {name:?}: {e}")))?;
        let mut tree = defaults.clone();
        merge(&mut tree, own, &format!("overrides.{name}"), path)?;
        let limits = serde_path_to_error::deserialize(tree)
            .map_err(|e| error(format!("overrides.{name}.{}: {}", e.path(), e.inner())))?;
        all.insert(tenant, limits);
    }
    Ok(all)
}

/// Reads the file once per period, and at each `hangup`. A file that is missing or wrong changes no limits.
pub(crate) async fn keep_reading(
    config: RuntimeConfig,
    default: Limits,
    mut last: HashMap<TenantId, Limits>,
    overrides: Arc<Overrides>,
    mut hangup: Signal,
    clock: Clock,
) {
    let mut failed = String::new();
    loop {
        clock.timeout(Duration::from(config.period), hangup.recv()).await;
        match read(&config, &default) {
            Ok(tenants) => {
                failed.clear();
                if tenants != last {
                    info!(file = config.file, tenants = tenants.len(), "limits of tenants have changed");
                    overrides.replace(default.clone(), tenants.clone());
                    last = tenants;
                }
            }
            Err(error) if error.to_string() != failed => {
                warn!(%error, "the limits of tenants stay as they were");
                failed = error.to_string();
            }
            Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> Result<HashMap<TenantId, Limits>, String> {
        let default = Limits { ingestion_rate_mb: 7.0, ..Limits::default() };
        parse(text, "limits.yaml", &default).map_err(|error| error.to_string())
    }

    #[test]
    fn tenants_inherit_limits_that_they_do_not_set() {
        let text = "overrides:\n  a:\n    retention_period: 1d\n    retention_by_service:\n    - {service: x, period: 2d}\n  b:\n";
        let all = check(text).unwrap();
        let a = &all[&TenantId::parse("a").unwrap()];
        assert_eq!((a.ingestion_rate_mb, a.retention_period), (7.0, limits::Duration::from_days(1)));
        assert_eq!(a.retention_of(Some("x")), Some(limits::Duration::from_days(2)));
        assert_eq!(all.len(), 1, "a tenant without anything has the default");
        assert_eq!(check("").unwrap().len() + check("overrides:\n").unwrap().len(), 0);
    }

    #[test]
    fn an_unknown_limit_is_refused_with_the_nearest_name() {
        let error = check("overrides:\n  a:\n    retention_perod: 1d\n").unwrap_err();
        assert!(
            error.ends_with("field overrides.a.retention_perod is not known; did you mean retention_period?"),
            "{error}"
        );
        assert!(check("overides: {}\n").unwrap_err().ends_with("did you mean overrides?"));
        assert!(check("overrides: {'a/b': {retention_period: 1d}}").is_err());
        assert!(check("overrides: {a: {retention_period: soon}}").is_err());
    }
}
