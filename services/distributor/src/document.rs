//! A document as the client sent it, and its decoding into a profile with labels and a key.
//!
//! Owns: the meaning of bytes, labels and parameters on each way in.
//! Does not own: the bytes themselves (`formats`), or whether the result is acceptable (`validate`, `labels`).

use std::sync::Arc;

use bytes::Bytes;
use clock::Clock;
use formats::compression::{self, Encoding};
use formats::ingest::{AppName, Format, SampleTypeConfig};
use formats::pprof::DecodedProfile;
use formats::{folded, gzip, ingest, jfr, kind, multipart, pprof, trees};
use limits::Limits;
use model::{DAY, ItemKey, Profile, TenantId, label_names};

use crate::error::{Error, shown};
use crate::key;
use crate::receipt::{DiscardCounts, Reason};
use crate::recording;

/// Largest document where the tenant has no limit.
const DOCUMENT_BYTES_MAX: usize = 256 << 20;

/// Memory per byte of content during decoding: the byte itself, and a one-byte number as four bytes.
const DECODED_PER_CONTENT: usize = 5;

/// Assumed expansion of a compressed document that does not announce its length.
const EXPANSION: usize = 20;

/// Most decompressed bytes of a form beside its profile or recording.
const FORM_REST_BYTES_MAX: usize = 1 << 20;

/// End of 1970. Profiles with an earlier time come from clients that write other units than nanoseconds.
const PLAUSIBLE_TIME_MIN: i64 = 365 * DAY * 1_000_000_000;

/// One document of a request, not decoded yet.
pub(crate) enum Document {
    Push(PushDocument),
    Ingest(Box<IngestDocument>),
}

/// One sample of the Push call.
pub(crate) struct PushDocument {
    /// Labels of the series, shared by all its samples.
    labels: Arc<[(String, String)]>,
    label_bytes: usize,
    /// Possibly gzipped.
    pprof: Bytes,
}

/// A request of `/ingest`.
pub(crate) struct IngestDocument {
    pub(crate) app: AppName,
    /// Unix nanoseconds.
    pub(crate) from: i64,
    /// Whether the client named a fixed instant, instead of one relative to now.
    pub(crate) from_is_fixed: bool,
    /// Unix nanoseconds.
    pub(crate) until: i64,
    pub(crate) spy_name: String,
    pub(crate) sample_rate: u32,
    pub(crate) format: Format,
    /// All parameters of the URL, as sent.
    pub(crate) parameters: Vec<(String, String)>,
    pub(crate) content_type: String,
    /// Encodings of the body, from the header `Content-Encoding`.
    pub(crate) encodings: Vec<Encoding>,
    pub(crate) body: Bytes,
}

/// A profile of a decoded document; a recording has several.
pub(crate) struct DecodedDocument {
    pub(crate) decoded: DecodedProfile,
    pub(crate) labels: Arc<[(String, String)]>,
    /// Size of its content, decompressed; its share of it, if the document has several profiles.
    pub(crate) bytes: usize,
    pub(crate) key: ItemKey,
    /// Samples that were sent and are not in `decoded`.
    pub(crate) skipped: DiscardCounts,
    /// Whether the profile belongs to one span alone (label `profile_id`); such profiles are not kept.
    pub(crate) is_of_span: bool,
}

impl DecodedDocument {
    /// Approximate memory of the decoded profile, in bytes.
    pub(crate) fn memory_bytes(&self) -> usize {
        let Profile { symbols, samples, .. } = &self.decoded.profile;
        symbols.byte_len()
            + size_of_val(&samples.values[..])
            + size_of_val(&samples.label_offsets[..])
            + size_of_val(&samples.labels[..])
    }
}

impl Document {
    /// Size on the wire, in bytes.
    pub(crate) fn wire_bytes(&self) -> usize {
        match self {
            Self::Push(pushed) => pushed.pprof.len(),
            Self::Ingest(ingested) => ingested.body.len(),
        }
    }

    /// Approximate memory needed to decompress and decode the document, from the size that it announces.
    ///
    /// # Errors
    /// If the announced size is above the limit.
    pub(crate) fn decoding_bytes(&self, limits: &Limits) -> Result<usize, Error> {
        let limit = document_bytes_max(limits);
        let content = match self {
            Self::Push(pushed) => announced_bytes(&pushed.pprof, limit)?,
            Self::Ingest(ingested) if !ingested.encodings.is_empty() => {
                expanded_bytes(ingested.body.len(), limit)
            }
            Self::Ingest(ingested) if ingested.is_form() => {
                let form = multipart::Form::parse(&ingested.content_type, &ingested.body);
                match form.ok().and_then(|form| form.file("profile").or_else(|| form.file("jfr"))) {
                    Some(profile) => announced_bytes(&profile, limit)?,
                    None => announced_bytes(&ingested.body, limit)?,
                }
            }
            Self::Ingest(ingested) => announced_bytes(&ingested.body, limit)?,
        };
        Ok(content.saturating_mul(DECODED_PER_CONTENT))
    }

    /// Memory of the labels that the document shares with others.
    pub(crate) fn shared_bytes(&self) -> usize {
        match self {
            Self::Push(pushed) => pushed.label_bytes,
            Self::Ingest(_) => 0,
        }
    }

    /// Decodes the document of `tenant`; none if it is empty.
    ///
    /// # Errors
    /// If it is malformed or too large.
    pub(crate) fn decode(
        self,
        tenant: &TenantId,
        limits: &Limits,
        clock: &Clock,
    ) -> Result<Vec<DecodedDocument>, Error> {
        let limit = document_bytes_max(limits);
        match self {
            Self::Push(pushed) => Ok(vec![pushed.decode(tenant, limit, clock)?]),
            Self::Ingest(ingested) => ingested.decode(tenant, limit, clock),
        }
    }
}

impl PushDocument {
    /// One document for each sample of a series, possibly gzipped.
    pub(crate) fn of_series(
        labels: impl Iterator<Item = (String, String)>,
        samples: impl Iterator<Item = Bytes>,
    ) -> impl Iterator<Item = Self> {
        let labels: Arc<[(String, String)]> = labels.collect();
        let text: usize = labels.iter().map(|(name, value)| name.len() + value.len()).sum();
        let label_bytes = size_of_val(&labels[..]) + text;
        samples.map(move |pprof| Self { labels: labels.clone(), label_bytes, pprof })
    }

    fn decode(self, tenant: &TenantId, limit: usize, clock: &Clock) -> Result<DecodedDocument, Error> {
        let content = compression::content(self.pprof, &[], limit)?;
        let decoded = pprof::decode(content.clone(), &pprof_limits(limit));
        let decoded = decoded.map_err(|error| not_a_pprof(error, &content))?;
        let key = match decoded.profile.time_nanos {
            ..=0 => key::random(clock),
            _ => key::of_content(tenant, &self.labels, &[], &content),
        };
        let (labels, bytes) = (self.labels, content.len());
        Ok(DecodedDocument {
            decoded,
            labels,
            bytes,
            key,
            skipped: DiscardCounts::default(),
            is_of_span: false,
        })
    }
}

impl IngestDocument {
    fn is_form(&self) -> bool {
        let is_form = || self.content_type.contains("multipart/form-data");
        self.format == Format::Multipart || (self.format == Format::Jfr && is_form())
    }

    fn decode(
        mut self,
        tenant: &TenantId,
        limit: usize,
        clock: &Clock,
    ) -> Result<Vec<DecodedDocument>, Error> {
        let body = std::mem::take(&mut self.body);
        if self.is_form() {
            return self.decode_form(body, limit, tenant, clock);
        }
        let content = compression::content(body, &self.encodings, limit)?;
        if content.is_empty() {
            return Ok(Vec::new());
        }
        let is_recording = match self.format {
            Format::Jfr => true,
            Format::Unnamed => jfr::is_recording(&content),
            _ => false,
        };
        if is_recording {
            return recording::decode(&self, &content, b"", tenant, clock);
        }
        let is_pprof = match self.format {
            Format::Pprof => true,
            // Binary content that is not a pprof either fails with the error of a pprof.
            Format::Unnamed => kind::is_binary(&content) || kind::of_pprof(&content).is_some(),
            _ => false,
        };
        let decoded = match is_pprof {
            true => self.decode_pprof(content, None, tenant, clock),
            false => self.decode_stacks(content, tenant, clock),
        };
        decoded.map(|document| document.into_iter().collect())
    }

    /// Decodes a form with a file `profile` or `jfr`.
    fn decode_form(
        self,
        body: Bytes,
        limit: usize,
        tenant: &TenantId,
        clock: &Clock,
    ) -> Result<Vec<DecodedDocument>, Error> {
        let form = self.form(body, limit)?;
        let file = |name| compression::content(form.file(name).unwrap_or_default(), &[], limit);
        if self.format == Format::Jfr || !has_file(&form, "profile") {
            return recording::decode(&self, &file("jfr")?, &file("labels")?, tenant, clock);
        }
        let config = form.file("sample_type_config");
        let decoded = self.decode_pprof(file("profile")?, config, tenant, clock);
        decoded.map(|document| document.into_iter().collect())
    }

    /// Parses the body as a form with a file `jfr`, or with a file `profile` unless the format says otherwise.
    fn form(&self, body: Bytes, limit: usize) -> Result<multipart::Form, Error> {
        let is_compressed = !self.encodings.is_empty() || Encoding::detect(&body).is_some();
        let body = match is_compressed {
            true => compression::content(body, &self.encodings, limit.saturating_add(FORM_REST_BYTES_MAX))?,
            false => body,
        };
        let form = multipart::Form::parse(&self.content_type, &body)?;
        if form.file("prev_profile").is_some() {
            return Err(Error::CumulativePair);
        }
        let is_jfr = self.format == Format::Jfr;
        if has_file(&form, "jfr") || (!is_jfr && has_file(&form, "profile")) {
            return Ok(form);
        }
        let files = form.file_names().map(|name| format!("file {name:?}"));
        let fields = form.field_names().map(|name| format!("field {name:?}"));
        let parts: Vec<String> = files.chain(fields).collect();
        let parts = shown(if parts.is_empty() { "no parts".to_owned() } else { parts.join(", ") });
        let (file, content, example) = match is_jfr {
            true => ("jfr", "recording", "jfr=@recording.jfr"),
            false => ("profile", "pprof", "profile=@cpu.pb.gz"),
        };
        Err(Error::NoFile { file, content, example, parts })
    }

    fn decode_pprof(
        self,
        content: Bytes,
        config: Option<Bytes>,
        tenant: &TenantId,
        clock: &Clock,
    ) -> Result<Option<DecodedDocument>, Error> {
        let types = match &config {
            Some(json) => SampleTypeConfig::parse(json)?,
            None => SampleTypeConfig::default(),
        };
        if content.is_empty() {
            return Ok(None);
        }
        let decode = match types.is_dotnet(&self.spy_name) {
            true => pprof::decode_dotnet,
            false => pprof::decode,
        };
        let decoded = decode(content.clone(), &pprof_limits(content.len()));
        let mut decoded = decoded.map_err(|error| not_a_pprof(error, &content))?;
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
        let key = self.key(has_time, &[("sample_type_config", &config)], tenant, &content, clock);
        let service = (label_names::SERVICE_NAME, self.app.service.as_str());
        let labels = self.labels(&name, &[service]).into();
        let (bytes, skipped) = (content.len(), DiscardCounts::default());
        Ok(Some(DecodedDocument { decoded, labels, bytes, key, skipped, is_of_span: false }))
    }

    /// Decodes the formats without sample types: folded text, trees and tries.
    fn decode_stacks(
        self,
        content: Bytes,
        tenant: &TenantId,
        clock: &Clock,
    ) -> Result<Option<DecodedDocument>, Error> {
        let (service, suffix) = self.app.split_column();
        let column = ingest::column(suffix, self.sample_rate)?;
        self.check_line_ends(&content)?;
        let not_text = |error| Error::Text {
            error,
            kind: kind::recognise(&content).or_else(|| kind::of_pprof(&content)),
        };
        let mut skipped = DiscardCounts::default();
        let profile = match self.format {
            Format::Lines => folded::decode_lines(content.clone(), &column, self.from).map_err(not_text)?,
            Format::Tree => trees::decode_tree(&content, &column, self.from)?,
            Format::Trie => trees::decode_trie(&content, &column, self.from)?,
            _ => {
                let groups = folded::decode_groups(content.clone(), &column, self.from).map_err(not_text)?;
                skipped.count(Reason::LineWithoutCount, groups.skipped.without_count);
                skipped.count(Reason::LineTooLong, groups.skipped.from_long_line);
                groups.profile
            }
        };
        let key = self.key(false, &[("sample_type_config", "")], tenant, &content, clock);
        let labels = self.labels(column.name, &[(self.service_label(), service)]);
        let is_of_span =
            self.app.labels.iter().any(|(name, value)| name == "profile_id" && !value.is_empty());
        let decoded = DecodedProfile { profile, flaw: None };
        let (labels, bytes) = (labels.into(), content.len());
        Ok(Some(DecodedDocument { decoded, labels, bytes, key, skipped, is_of_span }))
    }

    /// Refuses folded text whose lines `curl -d` has joined. Other clients send the same content type by default, so
    /// the content type alone is no proof.
    fn check_line_ends(&self, text: &[u8]) -> Result<(), Error> {
        let is_groups = matches!(self.format, Format::Groups | Format::Unnamed);
        let is_form = self.content_type.starts_with("application/x-www-form-urlencoded");
        let is_one_line = !text.contains(&b'\n');
        if is_groups && is_form && is_one_line && has_count_inside(text) && kind::recognise(text).is_none() {
            return Err(Error::LostLineEnds { content_type: shown(&self.content_type) });
        }
        Ok(())
    }

    /// The key of a profile of `content`; `rest` is what else decides about it.
    pub(crate) fn key(
        &self,
        has_time: bool,
        rest: &[(&str, &str)],
        tenant: &TenantId,
        content: &[u8],
        clock: &Clock,
    ) -> ItemKey {
        if !has_time && !self.from_is_fixed {
            return key::random(clock);
        }
        let sent = self.parameters.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let parameters: Vec<_> = sent.chain(rest.iter().copied()).collect();
        key::of_content(tenant, &[], &parameters, content)
    }

    /// The label for the service in the name of the application, beside a service that the user named.
    pub(crate) fn service_label(&self) -> &'static str {
        if self.user_label(label_names::SERVICE_NAME) { "app_name" } else { label_names::SERVICE_NAME }
    }

    fn user_label(&self, name: &str) -> bool {
        self.app.labels.iter().any(|(n, _)| n == name)
    }

    /// The labels of the series: those of the application name, `__name__`, the labels added to every `/ingest`,
    /// and `defaults` where the application name has no such label.
    pub(crate) fn labels(&self, name: &str, defaults: &[(&str, &str)]) -> Vec<(String, String)> {
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

fn has_file(form: &multipart::Form, name: &str) -> bool {
    form.file_names().any(|file| file == name)
}

/// Decompressed length of a document: as announced, or an estimate.
fn announced_bytes(bytes: &Bytes, limit: usize) -> Result<usize, Error> {
    match Encoding::detect(bytes) {
        Some(Encoding::Gzip) => Ok(gzip::announced_bytes(bytes, limit).map_err(compression::Error::from)?),
        Some(Encoding::Deflate | Encoding::Zstd) => Ok(expanded_bytes(bytes.len(), limit)),
        None => Ok(bytes.len()),
    }
}

/// Estimated decompressed length of a document that does not announce it.
fn expanded_bytes(bytes: usize, limit: usize) -> usize {
    bytes.saturating_mul(EXPANSION).min(limit.max(bytes))
}

/// Most bytes of one document, decompressed.
fn document_bytes_max(limits: &Limits) -> usize {
    match limits.max_profile_size_bytes {
        0 => DOCUMENT_BYTES_MAX,
        limit => limit,
    }
}

/// Whether the text contains a space, digits and then the beginning of a name: `a;b 3c;d 1`.
fn has_count_inside(text: &[u8]) -> bool {
    let spaces = text.iter().enumerate().filter(|(_, byte)| **byte == b' ');
    spaces.map(|(position, _)| &text[position + 1..]).any(|rest| {
        let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let after = rest.get(digits);
        digits > 0 && after.is_some_and(|byte| !byte.is_ascii_whitespace() && *byte != b';')
    })
}

fn not_a_pprof(error: pprof::Error, content: &[u8]) -> Error {
    let is_too_large = matches!(error, pprof::Error::TooLarge { .. } | pprof::Error::TooMany { .. });
    let kind = if is_too_large { None } else { kind::recognise_text(content) };
    Error::Pprof { error, kind }
}

fn pprof_limits(bytes: usize) -> pprof::Limits {
    pprof::Limits { bytes, ..pprof::Limits::default() }
}
