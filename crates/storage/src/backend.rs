//! The client of the configured store.
//!
//! Owns: the translation of each option for `object_store`. Does not own: checking that the store can be used
//! (`check`).

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clock::Clock;
use object_store::aws::AmazonS3Builder;
use object_store::{Certificate, ClientOptions, ObjectStore, RetryConfig};

use crate::config::HttpConfig;
use crate::credentials::CredentialsFile;
use crate::local::LocalDir;
use crate::remote::Connector;
use crate::url::hide_url_secrets;
use crate::{Backend, Config, Metrics, OpenError, S3Config};

/// A server that does not accept a connection is given up quickly, because another one may.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Longest silence within one response; the whole request has a time limit by its size (`store::meter`).
const SILENCE_TIMEOUT: Duration = Duration::from_secs(10);
const POOL_IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// The client of a store, and the name of the store in messages.
pub(crate) struct StoreClient {
    pub(crate) objects: Arc<dyn ObjectStore>,
    /// The bucket or directory with the prefix, and its host.
    pub(crate) place: String,
    pub(crate) directory: Option<LocalDir>,
}

/// Opens the configured store. The client does not put `prefix` before keys yet.
///
/// # Errors
/// An option is wrong, or the directory cannot be used.
pub(crate) async fn open(
    config: &Config,
    prefix: &str,
    clock: &Clock,
    metrics: &Metrics,
) -> Result<StoreClient, OpenError> {
    let connector = Connector { clock: clock.clone(), metrics: metrics.clone() };
    let below = if prefix.is_empty() { String::new() } else { format!("/{prefix}") };
    let (objects, place): (Arc<dyn ObjectStore>, _) = match config.backend {
        Backend::Filesystem => {
            let directory = LocalDir::open(&config.filesystem.dir, prefix).await?;
            let place = format!("{directory}{below}");
            return Ok(StoreClient {
                objects: Arc::new(directory.clone()),
                place,
                directory: Some(directory),
            });
        }
        Backend::S3 => {
            let s3 = &config.s3;
            let host = match (s3.endpoint.is_empty(), s3.region.is_empty()) {
                (false, _) => host_of(&s3.endpoint),
                (true, false) => &format!("AWS {}", s3.region),
                (true, true) => "AWS",
            };
            let place = format!("s3://{}{below} at {host}", s3.bucket_name);
            (Arc::new(self::s3(s3, connector, clock)?), place)
        }
        #[cfg(feature = "gcs")]
        Backend::Gcs => {
            let gcs = &config.gcs;
            let host = if gcs.endpoint.is_empty() { "Google" } else { host_of(&gcs.endpoint) };
            let place = format!("gs://{}{below} at {host}", gcs.bucket_name);
            (Arc::new(self::gcs(gcs, connector)?), place)
        }
        #[cfg(feature = "azure")]
        Backend::Azure => {
            let azure = &config.azure;
            let host = match azure.endpoint.is_empty() {
                true => &format!("{}.{}", azure.account_name, azure.endpoint_suffix),
                false => host_of(&azure.endpoint),
            };
            let place = format!("azure://{}{below} at {host}", azure.container_name);
            (Arc::new(self::azure(azure, connector)?), place)
        }
        #[cfg(not(feature = "gcs"))]
        Backend::Gcs => return Err(OpenError::NotBuilt { backend: "gcs" }),
        #[cfg(not(feature = "azure"))]
        Backend::Azure => return Err(OpenError::NotBuilt { backend: "azure" }),
    };
    Ok(StoreClient { objects, place, directory: None })
}

/// Host and port of an endpoint, without the parts that may be secret: user, path and query.
fn host_of(endpoint: &str) -> &str {
    let (_, after_scheme) = endpoint.split_once("://").unwrap_or(("", endpoint));
    let authority = after_scheme.split(['/', '?', '#']).next().unwrap_or_default();
    authority.rsplit_once('@').map_or(authority, |(_, host)| host)
}

fn s3(
    config: &S3Config,
    connector: Connector,
    clock: &Clock,
) -> Result<object_store::aws::AmazonS3, OpenError> {
    if config.bucket_name.is_empty() {
        return Err(OpenError::Empty { option: "storage.s3.bucket-name" });
    }
    let endpoint = (!config.endpoint.is_empty()).then(|| endpoint_url(&config.endpoint, config.insecure));
    if let Some(endpoint) = &endpoint {
        check_endpoint("storage.s3.endpoint", endpoint)?;
    }
    let is_path_style = match config.bucket_lookup_type.as_str() {
        "" | "auto" => endpoint.is_some() || config.force_path_style,
        "path-style" | "path" => true,
        "virtual-hosted-style" | "virtual-hosted" | "dns" => false,
        other => {
            return Err(OpenError::Option { option: "storage.s3.bucket-lookup-type", value: other.into() });
        }
    };
    let mut builder = with_credentials(config, clock)?
        .with_bucket_name(&config.bucket_name)
        .with_virtual_hosted_style_request(!is_path_style)
        .with_unsigned_payload(config.unsigned_payload)
        // Objects are deleted one by one; the request for many needs a checksum that some stores do not support.
        .with_disable_bulk_delete(true)
        .with_client_options(client(&config.http, endpoint.as_deref())?)
        .with_retry(no_retries())
        .with_http_connector(connector);
    if !config.region.is_empty() {
        builder = builder.with_region(&config.region);
    }
    if let Some(endpoint) = endpoint {
        let endpoint = match is_path_style {
            true => endpoint,
            false => endpoint.replacen("://", &format!("://{}.", config.bucket_name), 1),
        };
        builder = builder.with_endpoint(endpoint);
    }
    Ok(with_encryption(builder, config)?.build()?)
}

fn with_credentials(config: &S3Config, clock: &Clock) -> Result<AmazonS3Builder, OpenError> {
    if !config.native_aws_auth_enabled && !config.access_key_id.is_empty() {
        let mut builder = AmazonS3Builder::new()
            .with_access_key_id(&config.access_key_id)
            .with_secret_access_key(&config.secret_access_key);
        if !config.session_token.is_empty() {
            builder = builder.with_token(&config.session_token);
        }
        return Ok(builder);
    }
    if !config.native_aws_auth_enabled && !config.credentials_file.is_empty() {
        let file = CredentialsFile::new(&config.credentials_file, &config.credentials_profile, clock.clone());
        return Ok(AmazonS3Builder::new().with_credentials(Arc::new(file)));
    }
    // The credentials that AWS provides to the process: variables, web identity, pod identity, task role, instance
    // role.
    Ok(AmazonS3Builder::from_env())
}

fn with_encryption(builder: AmazonS3Builder, config: &S3Config) -> Result<AmazonS3Builder, OpenError> {
    let sse = &config.sse;
    if !sse.kms_encryption_context.is_empty() {
        return Err(OpenError::Context);
    }
    Ok(match sse.r#type.as_str() {
        "" => builder,
        "SSE-S3" => builder.with_config("aws_server_side_encryption".parse()?, "AES256"),
        "SSE-KMS" => {
            let mut builder = builder.with_config("aws_server_side_encryption".parse()?, "aws:kms");
            if !sse.kms_key_id.is_empty() {
                builder = builder.with_config("aws_sse_kms_key_id".parse()?, &sse.kms_key_id);
            }
            if sse.kms_bucket_key { builder.with_bucket_key(true) } else { builder }
        }
        "SSE-C" if sse.customer_key.is_empty() => {
            return Err(OpenError::Empty { option: "storage.s3.sse.customer-key" });
        }
        "SSE-C" => builder.with_ssec_encryption(&sse.customer_key),
        other => return Err(OpenError::Option { option: "storage.s3.sse.type", value: other.into() }),
    })
}

/// A service account without a token, for emulators.
#[cfg(feature = "gcs")]
const EMULATOR_ACCOUNT: &str =
    r#"{"disable_oauth": true, "client_email": "", "private_key": "", "private_key_id": ""}"#;

#[cfg(feature = "gcs")]
fn gcs(
    config: &crate::GcsConfig,
    connector: Connector,
) -> Result<object_store::gcp::GoogleCloudStorage, OpenError> {
    use object_store::gcp::GoogleCloudStorageBuilder;

    if config.bucket_name.is_empty() {
        return Err(OpenError::Empty { option: "storage.gcs.bucket-name" });
    }
    let endpoint = Some(config.endpoint.as_str()).filter(|endpoint| !endpoint.is_empty());
    let is_emulator = endpoint.is_some_and(|endpoint| endpoint.starts_with("http://"));
    let mut builder = match (is_emulator, config.service_account.is_empty()) {
        (true, _) => GoogleCloudStorageBuilder::new().with_service_account_key(EMULATOR_ACCOUNT),
        (false, true) => GoogleCloudStorageBuilder::from_env(),
        (false, false) => GoogleCloudStorageBuilder::new().with_service_account_key(&config.service_account),
    };
    if let Some(endpoint) = endpoint {
        check_endpoint("storage.gcs.endpoint", endpoint)?;
        builder = builder.with_base_url(endpoint);
    }
    let client = client(&config.http, endpoint)?;
    let builder = builder.with_bucket_name(&config.bucket_name).with_client_options(client);
    Ok(builder.with_retry(no_retries()).with_http_connector(connector).build()?)
}

#[cfg(feature = "azure")]
fn azure(
    config: &crate::AzureConfig,
    connector: Connector,
) -> Result<object_store::azure::MicrosoftAzure, OpenError> {
    use object_store::azure::MicrosoftAzureBuilder;

    if config.container_name.is_empty() {
        return Err(OpenError::Empty { option: "storage.azure.container-name" });
    }
    if config.account_name.is_empty() {
        return Err(OpenError::Empty { option: "storage.azure.account-name" });
    }
    let endpoint = match config.endpoint.is_empty() {
        true => format!("https://{}.{}", config.account_name, config.endpoint_suffix),
        false => config.endpoint.clone(),
    };
    check_endpoint("storage.azure.endpoint", &endpoint)?;
    let mut builder = match config.account_key.is_empty() {
        true => MicrosoftAzureBuilder::from_env(),
        false => MicrosoftAzureBuilder::new().with_access_key(&config.account_key),
    };
    if !config.user_assigned_id.is_empty() {
        builder = builder.with_client_id(&config.user_assigned_id);
    }
    let client = client(&config.http, Some(&endpoint))?;
    let builder = builder.with_account(&config.account_name).with_container_name(&config.container_name);
    let builder = builder.with_endpoint(endpoint).with_client_options(client);
    Ok(builder.with_retry(no_retries()).with_http_connector(connector).build()?)
}

fn client(config: &HttpConfig, endpoint: Option<&str>) -> Result<ClientOptions, OpenError> {
    let mut client = ClientOptions::new()
        .with_timeout_disabled()
        .with_connect_timeout(CONNECT_TIMEOUT)
        .with_read_timeout(SILENCE_TIMEOUT)
        .with_pool_idle_timeout(POOL_IDLE_TIMEOUT)
        .with_pool_max_idle_per_host(config.max_idle_connections_per_host)
        .with_allow_invalid_certificates(config.insecure_skip_verify)
        .with_allow_http(endpoint.is_some_and(|endpoint| endpoint.starts_with("http://")));
    if !config.proxy_url.is_empty() {
        client = client.with_proxy_url(&config.proxy_url);
    }
    if !config.proxy_excludes.is_empty() {
        client = client.with_proxy_excludes(&config.proxy_excludes);
    }
    if !config.tls_ca_path.is_empty() {
        let path = PathBuf::from(&config.tls_ca_path);
        let pem = std::fs::read(&path)
            .map_err(|source| OpenError::Authorities { path: path.clone(), source: Box::new(source) })?;
        let authorities = Certificate::from_pem_bundle(&pem)
            .map_err(|source| OpenError::Authorities { path: path.clone(), source: Box::new(source) })?;
        for authority in authorities {
            client = client.with_root_certificate(authority);
        }
    }
    Ok(client)
}

/// No retries inside the client: a create that is sent twice collides with itself, and `Store` repeats reads, where
/// they are counted.
fn no_retries() -> RetryConfig {
    RetryConfig { max_retries: 0, ..RetryConfig::default() }
}

fn endpoint_url(endpoint: &str, insecure: bool) -> String {
    match (endpoint.contains("://"), insecure) {
        (true, _) => endpoint.to_owned(),
        (false, true) => format!("http://{endpoint}"),
        (false, false) => format!("https://{endpoint}"),
    }
}

/// Checks that requests can be sent to `endpoint`: `object_store` panics if it is not the URL of a server.
///
/// # Errors
/// Names the option and its value, without secrets.
fn check_endpoint(option: &'static str, endpoint: &str) -> Result<(), OpenError> {
    let names_server = |url: http::Uri| {
        let (Some(authority), Some(host)) = (url.authority(), url.host()) else { return false };
        let is_http = matches!(url.scheme_str(), Some("http" | "https"));
        is_http && !host.is_empty() && (url.port().is_some() || authority.as_str().ends_with(host))
    };
    match endpoint.parse().is_ok_and(names_server) {
        true => Ok(()),
        false => Err(OpenError::Option { option, value: hide_url_secrets(endpoint) }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::SseConfig;

    #[test]
    fn an_endpoint_is_the_url_of_a_server() {
        let is_usable = |endpoint: &str| check_endpoint("storage.s3.endpoint", endpoint).is_ok();
        assert!(is_usable("https://minio:9000") && is_usable("http://[::1]:9000/path"));
        for endpoint in
            ["https://", "https://a b", "https://minio:port", "ftp://minio", "https://[::1", "https:///x"]
        {
            assert!(!is_usable(endpoint), "{endpoint}");
        }
        let Err(error) = check_endpoint("storage.s3.endpoint", "https://u:hush@a b/") else {
            panic!("is usable")
        };
        assert_eq!(error.to_string(), "storage.s3.endpoint cannot be \"https://********@a b/\"");
    }

    #[test]
    fn endpoints_get_a_scheme() {
        assert_eq!(endpoint_url("minio:9000", true), "http://minio:9000");
        assert_eq!(endpoint_url("minio:9000", false), "https://minio:9000");
        assert_eq!(endpoint_url("http://minio:9000", false), "http://minio:9000");
    }

    #[test]
    fn an_endpoint_is_named_without_its_secrets() {
        assert_eq!(host_of("minio:9000"), "minio:9000");
        assert_eq!(host_of("https://user:secret@minio:9000/path?sig=secret"), "minio:9000");
        assert_eq!(host_of("http://[::1]:9000"), "[::1]:9000");
    }

    fn refusal(config: S3Config) -> String {
        let config = S3Config { access_key_id: "a".into(), secret_access_key: "b".into(), ..config };
        let connector = Connector { clock: Clock::system(), metrics: Metrics::default() };
        let _ = rustls::crypto::ring::default_provider().install_default();
        match s3(&config, connector, &Clock::system()) {
            Ok(_) => String::new(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn impossible_options_are_refused_by_name() {
        let bucket = || S3Config { bucket_name: "b".into(), ..S3Config::default() };
        let sse = |sse: SseConfig| S3Config { sse, ..bucket() };
        let check = |config: S3Config, expected: &str| {
            let refusal = refusal(config);
            assert!(refusal.contains(expected) && refusal.is_empty() == expected.is_empty(), "{refusal}");
        };
        check(bucket(), "");
        check(S3Config::default(), "storage.s3.bucket-name");
        check(
            S3Config { bucket_lookup_type: "x".into(), ..bucket() },
            "storage.s3.bucket-lookup-type cannot be \"x\"",
        );
        check(sse(SseConfig { r#type: "SSE-S3".into(), ..SseConfig::default() }), "");
        check(
            sse(SseConfig { r#type: "SSE-KMS".into(), kms_key_id: "k".into(), ..SseConfig::default() }),
            "",
        );
        check(
            sse(SseConfig { r#type: "SSE-C".into(), ..SseConfig::default() }),
            "storage.s3.sse.customer-key",
        );
        check(sse(SseConfig { r#type: "AES".into(), ..SseConfig::default() }), "storage.s3.sse.type");
        check(
            sse(SseConfig { kms_encryption_context: "{}".into(), ..SseConfig::default() }),
            "kms-encryption-context",
        );
        let http = HttpConfig { tls_ca_path: "/nowhere/ca.pem".into(), ..HttpConfig::default() };
        check(S3Config { http, ..bucket() }, "/nowhere/ca.pem");
    }
}
