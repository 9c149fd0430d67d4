//! What a client sent, and how it becomes a decoded profile with labels and a key.
//!
//! Owns: what each way in means by its bytes, labels and parameters.
//! Does not own: the bytes themselves (`formats`), or whether the result is acceptable (`validate`, `labels`).

use std::sync::Arc;

use bytes::Bytes;
use clock::Clock;
use formats::ingest::{AppName, Format, SampleTypeConfig};
use formats::pprof::Decoded;
use formats::{folded, gzip, ingest, multipart, pprof, trees};
use limits::Limits;
use model::{ItemKey, Profile, TenantId, label_names};

use crate::error::Error;
use crate::key;

/// Largest document where the tenant has no limit.
const DOCUMENT_BYTES_MAX: usize = 256 << 20;

/// Memory of a byte of content while it is decoded: itself, and a number of one byte as four.
const DECODED_PER_CONTENT: usize = 5;

/// Profiles whose time lies before this, the end of 1970, come from clients that write other units than
/// nanoseconds.
const PLAUSIBLE_TIME_MIN: i64 = 365 * 86_400 * 1_000_000_000;

/// One document of a request, not yet looked into.
pub(crate) enum Document {
    Pushed(Pushed),
    Ingested(Box<Ingested>),
}

/// One sample of the Push call.
pub(crate) struct Pushed {
    /// Those of its series, which may have many samples.
    labels: Arc<[(String, String)]>,
    label_bytes: usize,
    /// Maybe gzipped.
    pprof: Bytes,
}

/// A request of `/ingest`.
pub(crate) struct Ingested {
    pub(crate) app: AppName,
    /// Unix nanoseconds.
    pub(crate) from: i64,
    /// Whether the client said which instant that is, instead of counting back from now.
    pub(crate) from_is_fixed: bool,
    pub(crate) spy_name: String,
    pub(crate) sample_rate: u32,
    pub(crate) format: Format,
    /// All of the query, as sent.
    pub(crate) parameters: Vec<(String, String)>,
    pub(crate) content_type: String,
    pub(crate) body: Bytes,
}

/// A document that could be decoded.
pub(crate) struct Opened {
    pub(crate) decoded: Decoded,
    pub(crate) labels: Arc<[(String, String)]>,
    /// Size of its content, decompressed.
    pub(crate) bytes: usize,
    pub(crate) key: ItemKey,
}

impl Opened {
    /// Memory that the decoded profile takes, roughly.
    pub(crate) fn memory_bytes(&self) -> usize {
        let Profile { symbols, samples, .. } = &self.decoded.profile;
        symbols.byte_len()
            + size_of_val(&samples.values[..])
            + size_of_val(&samples.label_offsets[..])
            + size_of_val(&samples.labels[..])
    }
}

impl Document {
    /// Bytes as they came over the wire.
    pub(crate) fn wire_bytes(&self) -> usize {
        match self {
            Self::Pushed(pushed) => pushed.pprof.len(),
            Self::Ingested(ingested) => ingested.body.len(),
        }
    }

    /// Memory that decompressing and decoding it takes, about, by what it says of itself.
    ///
    /// # Errors
    /// If it says that it is too large.
    pub(crate) fn decoding_bytes(&self, limits: &Limits) -> Result<usize, Error> {
        let bytes = match self {
            Self::Pushed(pushed) => &pushed.pprof,
            Self::Ingested(ingested) => &ingested.body,
        };
        let content = match gzip::is_gzip(bytes) {
            true => gzip::announced_bytes(bytes, document_bytes_max(limits))?,
            false => bytes.len(),
        };
        Ok(content.saturating_mul(DECODED_PER_CONTENT))
    }

    /// Memory of the labels that it shares with others.
    pub(crate) fn shared_bytes(&self) -> usize {
        match self {
            Self::Pushed(pushed) => pushed.label_bytes,
            Self::Ingested(_) => 0,
        }
    }

    /// Decodes the document of `tenant`; `None` if there is nothing in it.
    ///
    /// # Errors
    /// If it is not what it should be, or too large.
    pub(crate) fn open(
        self,
        tenant: &TenantId,
        limits: &Limits,
        clock: &Clock,
    ) -> Result<Option<Opened>, Error> {
        let limit = document_bytes_max(limits);
        match self {
            Self::Pushed(pushed) => pushed.open(tenant, limit, clock).map(Some),
            Self::Ingested(ingested) => ingested.open(tenant, limit, clock),
        }
    }
}

impl Pushed {
    /// The samples of one series, each maybe gzipped.
    pub(crate) fn of_series(
        labels: impl Iterator<Item = (String, String)>,
        samples: impl Iterator<Item = Bytes>,
    ) -> impl Iterator<Item = Self> {
        let labels: Arc<[(String, String)]> = labels.collect();
        let text: usize = labels.iter().map(|(name, value)| name.len() + value.len()).sum();
        let label_bytes = size_of_val(&labels[..]) + text;
        samples.map(move |pprof| Self { labels: labels.clone(), label_bytes, pprof })
    }

    fn open(self, tenant: &TenantId, limit: usize, clock: &Clock) -> Result<Opened, Error> {
        let content = gzip::content(self.pprof, limit)?;
        let decoded = pprof::decode(content.clone(), &pprof_limits(limit))?;
        let key = match decoded.profile.time_nanos {
            ..=0 => key::random(clock),
            _ => key::of_content(tenant, &self.labels, &[], &content),
        };
        Ok(Opened { decoded, labels: self.labels, bytes: content.len(), key })
    }
}

impl Ingested {
    fn open(mut self, tenant: &TenantId, limit: usize, clock: &Clock) -> Result<Option<Opened>, Error> {
        let body = std::mem::take(&mut self.body);
        match self.format {
            Format::Pprof => self.open_pprof(body, None, tenant, limit, clock),
            Format::Multipart => {
                let form = multipart::Form::parse(&self.content_type, &body)?;
                if form.file("prev_profile").is_some() {
                    return Err(Error::CumulativePair);
                }
                let config = form.file("sample_type_config");
                let profile = form.file("profile").unwrap_or_default();
                self.open_pprof(profile, config, tenant, limit, clock)
            }
            Format::Groups | Format::Lines | Format::Tree | Format::Trie => {
                self.open_stacks(body, tenant, limit, clock)
            }
        }
    }

    fn open_pprof(
        self,
        body: Bytes,
        config: Option<Bytes>,
        tenant: &TenantId,
        limit: usize,
        clock: &Clock,
    ) -> Result<Option<Opened>, Error> {
        let types = match &config {
            Some(json) => SampleTypeConfig::parse(json)?,
            None => SampleTypeConfig::default(),
        };
        if body.is_empty() {
            return Ok(None);
        }
        let content = gzip::content(body, limit)?;
        let decode = match types.is_dotnet(&self.spy_name) {
            true => pprof::decode_dotnet,
            false => pprof::decode,
        };
        let mut decoded = decode(content.clone(), &pprof_limits(limit))?;
        let profile = &mut decoded.profile;
        ingest::put_files_into_frame_names(profile, &self.spy_name)?;
        let has_time = profile.time_nanos >= PLAUSIBLE_TIME_MIN;
        if !has_time {
            profile.time_nanos = self.from;
        }
        let strings = &profile.symbols.strings;
        let names: Vec<_> = profile.sample_types.iter().map(|t| strings.text(t.r#type)).collect();
        let name = types.series_name(names.iter().map(|name| name.as_ref()));
        let config = String::from_utf8_lossy(config.as_deref().unwrap_or_default());
        let key = self.key(has_time, &config, tenant, &content, clock);
        let service = (label_names::SERVICE_NAME, self.app.service.as_str());
        let labels = self.labels(&name, &[service]).into();
        Ok(Some(Opened { decoded, labels, bytes: content.len(), key }))
    }

    /// What has no types of its own: folded text, trees and tries.
    fn open_stacks(
        self,
        body: Bytes,
        tenant: &TenantId,
        limit: usize,
        clock: &Clock,
    ) -> Result<Option<Opened>, Error> {
        // A client's way to say that the profile belongs to a span alone, which is not kept.
        let of_span = self.app.labels.iter().any(|(name, value)| name == "profile_id" && !value.is_empty());
        if body.is_empty() || of_span {
            return Ok(None);
        }
        if body.len() > limit {
            return Err(gzip::Error::TooLarge { bytes: body.len(), limit }.into());
        }
        let (service, suffix) = self.app.split_column();
        let column = ingest::column(suffix, self.sample_rate)?;
        let profile = match self.format {
            Format::Lines => folded::decode_lines(body.clone(), &column, self.from)?,
            Format::Tree => trees::decode_tree(&body, &column, self.from)?,
            Format::Trie => trees::decode_trie(&body, &column, self.from)?,
            _ => folded::decode_groups(body.clone(), &column, self.from)?,
        };
        let key = self.key(false, "", tenant, &body, clock);
        let labels = match self.user_label(label_names::SERVICE_NAME) {
            true => self.labels(column.name, &[("app_name", service)]),
            false => self.labels(column.name, &[(label_names::SERVICE_NAME, service)]),
        };
        let decoded = Decoded { profile, flaw: None };
        Ok(Some(Opened { decoded, labels: labels.into(), bytes: body.len(), key }))
    }

    fn key(&self, has_time: bool, config: &str, tenant: &TenantId, content: &[u8], clock: &Clock) -> ItemKey {
        if !has_time && !self.from_is_fixed {
            return key::random(clock);
        }
        let sent = self.parameters.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let parameters: Vec<_> = sent.chain([("sample_type_config", config)]).collect();
        key::of_content(tenant, &[], &parameters, content)
    }

    fn user_label(&self, name: &str) -> bool {
        self.app.labels.iter().any(|(n, _)| n == name)
    }

    /// The labels of the series: those of the application name, and beside them `__name__`, what every
    /// `/ingest` adds, and `defaults` where the application name has no such label.
    fn labels(&self, name: &str, defaults: &[(&str, &str)]) -> Vec<(String, String)> {
        let allowed = |name: &str| !name.starts_with("__") || name == "__session_id__";
        let mut labels: Vec<(String, String)> =
            self.app.labels.iter().filter(|(name, _)| allowed(name)).cloned().collect();
        labels.push((label_names::NAME.to_owned(), name.to_owned()));
        labels.push(("__delta__".to_owned(), "false".to_owned()));
        let defaults = defaults.iter().copied().chain([("pyroscope_spy", self.spy_name.as_str())]);
        for (name, value) in defaults.filter(|(name, _)| !self.user_label(name)) {
            labels.push((name.to_owned(), value.to_owned()));
        }
        labels
    }
}

/// Most bytes of one document, decompressed.
fn document_bytes_max(limits: &Limits) -> usize {
    match limits.max_profile_size_bytes {
        0 => DOCUMENT_BYTES_MAX,
        limit => limit,
    }
}

fn pprof_limits(bytes: usize) -> pprof::Limits {
    pprof::Limits { bytes, ..pprof::Limits::default() }
}
