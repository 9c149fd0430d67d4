//! Writes small JFR recordings, in every form that the format allows.
//!
//! Owns: chunks, metadata, checkpoints, events, numbers and texts as bytes; types like those of real writers.
//! Does not own: what the events mean.
#![allow(clippy::expect_used, reason = "a test that cannot go on should stop where it is")]

use std::cell::RefCell;

/// A field of a type.
#[derive(Clone, Copy)]
pub(crate) struct Field {
    pub(crate) name: &'static str,
    pub(crate) of: &'static str,
    pub(crate) is_constant: bool,
    pub(crate) is_array: bool,
}

/// A type with its fields, in the order in which they are written.
pub(crate) struct Type {
    pub(crate) name: &'static str,
    pub(crate) fields: Vec<Field>,
}

/// A value of a field; a field without one is written with a default.
pub(crate) enum Value {
    Number(i64),
    Text(String),
    Rows(Vec<Fields>),
}

pub(crate) type Fields = Vec<(&'static str, Value)>;

/// Constants of one type with their keys.
pub(crate) type Pool = (&'static str, Vec<(u64, Fields)>);

/// How a chunk is written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Form {
    pub(crate) is_compressed: bool,
    /// Encoding of texts: 2 in the pool, 3 UTF-8, 4 UTF-16 units, 5 Latin-1.
    pub(crate) text_encoding: u8,
    /// Whether types have fields that no reader knows.
    pub(crate) has_unknown_fields: bool,
    /// By how many places the fields of each type are rotated.
    pub(crate) rotation: usize,
    /// Whether constants come before the events.
    pub(crate) has_constants_first: bool,
}

impl Default for Form {
    fn default() -> Self {
        Self {
            is_compressed: true,
            text_encoding: 3,
            has_unknown_fields: false,
            rotation: 0,
            has_constants_first: false,
        }
    }
}

/// A chunk to be written.
pub(crate) struct Chunk {
    form: Form,
    pub(crate) types: Vec<Type>,
    pub(crate) checkpoints: Vec<Vec<Pool>>,
    pub(crate) events: Vec<(&'static str, Fields)>,
    pooled: RefCell<Vec<String>>,
}

const PRIMITIVES: [&str; 9] =
    ["boolean", "byte", "char", "short", "int", "long", "float", "double", "java.lang.String"];

const TEXT: &str = "java.lang.String";

const fn value(name: &'static str, of: &'static str) -> Field {
    Field { name, of, is_constant: false, is_array: false }
}

const fn key(name: &'static str, of: &'static str) -> Field {
    Field { name, of, is_constant: true, is_array: false }
}

const fn array(name: &'static str, of: &'static str) -> Field {
    Field { name, of, is_constant: false, is_array: true }
}

/// An event with a stacktrace, and fields of its own.
fn sample(name: &'static str, own: &[Field]) -> Type {
    let mut fields = vec![value("startTime", "long"), key("eventThread", "java.lang.Thread")];
    fields.push(key("stackTrace", "jdk.types.StackTrace"));
    fields.extend_from_slice(own);
    Type { name, fields }
}

fn types(form: Form) -> Vec<Type> {
    let context = ["contextId", "spanId", "spanName", "traceIdHi", "traceIdLo"];
    let context: Vec<Field> = context.iter().map(|name| value(name, "long")).collect();
    let state = key("state", "jdk.types.ThreadState");
    let with_context = |own: &[Field]| [own, &context].concat();
    let plain = |name, fields: &[Field]| Type { name, fields: fields.to_vec() };
    let mut types: Vec<Type> = PRIMITIVES.iter().map(|name| plain(name, &[])).collect();
    types.extend([
        plain("java.lang.Thread", &[value("osName", TEXT)]),
        plain("java.lang.Class", &[value("modifiers", "int"), key("name", "jdk.types.Symbol")]),
        plain("jdk.types.Symbol", &[value("string", TEXT)]),
        plain(
            "jdk.types.Method",
            &[
                key("type", "java.lang.Class"),
                key("name", "jdk.types.Symbol"),
                key("descriptor", "jdk.types.Symbol"),
                value("hidden", "boolean"),
            ],
        ),
        plain(
            "jdk.types.StackTrace",
            &[value("truncated", "boolean"), array("frames", "jdk.types.StackFrame")],
        ),
        plain(
            "jdk.types.StackFrame",
            &[key("method", "jdk.types.Method"), value("lineNumber", "int"), value("bytecodeIndex", "int")],
        ),
        plain("jdk.types.ThreadState", &[value("name", TEXT)]),
        plain("jdk.ActiveSetting", &[value("id", "long"), value("name", TEXT), value("value", TEXT)]),
        plain("jdk.CPULoad", &[value("machineTotal", "float")]),
        sample("jdk.ExecutionSample", &with_context(&[state])),
        sample("profiler.WallClockSample", &with_context(&[state, value("samples", "int")])),
        sample("jdk.CPUTimeSample", &[value("failed", "boolean"), value("samplingPeriod", "long")]),
        sample(
            "jdk.ObjectAllocationInNewTLAB",
            &with_context(&[value("allocationSize", "long"), value("tlabSize", "long")]),
        ),
        sample("jdk.ObjectAllocationOutsideTLAB", &[value("allocationSize", "long")]),
        sample("jdk.ObjectAllocationSample", &[value("weight", "long")]),
        sample("jdk.JavaMonitorEnter", &with_context(&[value("duration", "long")])),
        sample("jdk.ThreadPark", &[value("duration", "long")]),
        sample("profiler.LiveObject", &[value("allocationSize", "long")]),
        sample("profiler.Malloc", &[value("address", "long"), value("size", "long")]),
        sample("profiler.Free", &[value("address", "long")]),
    ]);
    types.push(plain("test.Inner", &[array("numbers", "short"), value("ratio", "double")]));
    types.push(plain("test.Empty", &[]));
    for described in &mut types[PRIMITIVES.len()..] {
        let is_extended = form.has_unknown_fields && !described.name.starts_with("test.");
        if is_extended {
            described.fields.insert(0, value("test.first", "test.Inner"));
            described.fields.extend([
                array("test.many", "test.Inner"),
                array("test.nothing", "test.Empty"),
                array("test.texts", TEXT),
                key("test.text", TEXT),
                value("test.float", "float"),
                value("test.char", "char"),
            ]);
        }
        let length = described.fields.len().max(1);
        described.fields.rotate_left(form.rotation % length);
    }
    types
}

impl Chunk {
    pub(crate) fn new(form: Form) -> Self {
        let (checkpoints, events) = (Vec::new(), Vec::new());
        Self { form, types: types(form), checkpoints, events, pooled: RefCell::default() }
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.pooled.borrow_mut().clear();
        let mut out = vec![0; 68];
        let constants: Vec<Vec<u8>> = self.checkpoints.iter().map(|pools| self.checkpoint(pools)).collect();
        let events = self.events.iter().map(|(name, fields)| {
            let mut event = Vec::new();
            self.number(&mut event, self.id(name) as i64, 8);
            self.fields(&mut event, name, fields);
            event
        });
        let events: Vec<Vec<u8>> = events.collect();
        let (first, second) =
            if self.form.has_constants_first { (constants, events) } else { (events, constants) };
        for event in first.iter().chain(&second) {
            self.sized(&mut out, event);
        }
        let constants_at = out.len();
        self.sized(&mut out, &self.pooled_texts());
        let metadata_at = out.len();
        self.sized(&mut out, &self.metadata());
        let size = out.len() as i64;
        let mut header = b"FLR\0\0\x02\0\x01".to_vec();
        for number in [size, constants_at as i64, metadata_at as i64, 1, 2, 3, 1_000_000_000] {
            header.extend_from_slice(&number.to_be_bytes());
        }
        header.extend_from_slice(&u32::from(self.form.is_compressed).to_be_bytes());
        out[..68].copy_from_slice(&header);
        out
    }

    fn id(&self, name: &str) -> u64 {
        100 + self.types.iter().position(|described| described.name == name).expect("a known type") as u64
    }

    /// Appends an event behind its size, which counts itself.
    fn sized(&self, out: &mut Vec<u8>, event: &[u8]) {
        let start = out.len();
        // Padded to one length, as real writers do, so that it need not be known before.
        let size = event.len() + if self.form.is_compressed { 5 } else { 4 };
        match self.form.is_compressed {
            true => out.extend((0..5).map(|i| (size >> (7 * i)) as u8 & 0x7f | if i < 4 { 0x80 } else { 0 })),
            false => out.extend_from_slice(&(size as i32).to_be_bytes()),
        }
        out.extend_from_slice(event);
        assert_eq!(out.len() - start, size);
    }

    /// Appends a number of `width` bytes, or a compressed one.
    fn number(&self, out: &mut Vec<u8>, number: i64, width: usize) {
        if !self.form.is_compressed {
            return out.extend_from_slice(&number.to_be_bytes()[8 - width..]);
        }
        let mut rest = match width {
            2 => u64::from(number as u16),
            4 => u64::from(number as u32),
            _ => number as u64,
        };
        for _ in 0..8 {
            if rest < 0x80 {
                return out.push(rest as u8);
            }
            out.push(rest as u8 | 0x80);
            rest >>= 7;
        }
        out.push(rest as u8);
    }

    fn text(&self, out: &mut Vec<u8>, text: &str, encoding: u8) {
        let is_latin1 = text.chars().all(|c| u32::from(c) < 256);
        match encoding {
            _ if text.is_empty() => out.push(1),
            2 => {
                out.push(2);
                let key = self.pool(text);
                self.number(out, key, 8);
            }
            4 => {
                out.push(4);
                self.number(out, text.encode_utf16().count() as i64, 4);
                text.encode_utf16().for_each(|unit| self.number(out, unit as i16 as i64, 2));
            }
            5 if is_latin1 => {
                out.push(5);
                self.number(out, text.chars().count() as i64, 4);
                out.extend(text.chars().map(|c| c as u8));
            }
            _ => {
                out.push(3);
                self.number(out, text.len() as i64, 4);
                out.extend_from_slice(text.as_bytes());
            }
        }
    }

    /// The key of a text in the pool.
    fn pool(&self, text: &str) -> i64 {
        let mut pooled = self.pooled.borrow_mut();
        let known = pooled.iter().position(|other| other == text);
        let index = known.unwrap_or_else(|| {
            pooled.push(text.to_owned());
            pooled.len() - 1
        });
        index as i64 * 1000 + 7
    }

    fn pooled_texts(&self) -> Vec<u8> {
        let pooled = self.pooled.borrow().clone();
        let mut out = self.checkpoint_head(1);
        self.number(&mut out, self.id(TEXT) as i64, 8);
        self.number(&mut out, pooled.len() as i64, 4);
        for text in &pooled {
            let key = self.pool(text);
            self.number(&mut out, key, 8);
            self.text(&mut out, text, 3);
        }
        out
    }

    fn checkpoint_head(&self, pools: usize) -> Vec<u8> {
        let mut out = Vec::new();
        for number in [1, 0, 0, 0] {
            self.number(&mut out, number, 8);
        }
        out.push(0);
        self.number(&mut out, pools as i64, 4);
        out
    }

    fn checkpoint(&self, pools: &[Pool]) -> Vec<u8> {
        let mut out = self.checkpoint_head(pools.len());
        for (name, constants) in pools {
            self.number(&mut out, self.id(name) as i64, 8);
            self.number(&mut out, constants.len() as i64, 4);
            for (key, fields) in constants {
                self.number(&mut out, *key as i64, 8);
                self.fields(&mut out, name, fields);
            }
        }
        out
    }

    fn fields(&self, out: &mut Vec<u8>, of: &str, fields: &Fields) {
        let described = self.types.iter().find(|described| described.name == of).expect("a known type");
        for field in &described.fields {
            let given = fields.iter().find(|(name, _)| *name == field.name).map(|(_, value)| value);
            match (field.is_array, given) {
                (true, Some(Value::Rows(rows))) => {
                    self.number(out, rows.len() as i64, 4);
                    rows.iter().for_each(|row| self.fields(out, field.of, row));
                }
                (true, _) => {
                    self.number(out, 2, 4);
                    (0..2).for_each(|_| self.value(out, field, None));
                }
                (false, given) => self.value(out, field, given),
            }
        }
    }

    fn value(&self, out: &mut Vec<u8>, field: &Field, given: Option<&Value>) {
        let number = match given {
            Some(Value::Number(number)) => *number,
            Some(_) => 0,
            None if field.is_constant || field.name.starts_with("test.") => 77,
            None => 0,
        };
        let text = if let Some(Value::Text(text)) = given { text } else { "other" };
        match field.of {
            TEXT if field.is_constant => {
                let key = self.pool(text);
                self.number(out, key, 8);
            }
            _ if field.is_constant => self.number(out, number, 8),
            "boolean" | "byte" => out.push(number as u8),
            "short" | "char" => self.number(out, number, 2),
            "int" => self.number(out, number, 4),
            "long" => self.number(out, number, 8),
            "float" => out.extend_from_slice(&1.5_f32.to_be_bytes()),
            "double" => out.extend_from_slice(&1.5_f64.to_be_bytes()),
            TEXT => self.text(out, text, self.form.text_encoding),
            of => self.fields(out, of, &Vec::new()),
        }
    }

    fn metadata(&self) -> Vec<u8> {
        let strings: RefCell<Vec<String>> = RefCell::default();
        let index = |text: &str| {
            let mut strings = strings.borrow_mut();
            let known = strings.iter().position(|other| other == text);
            known.unwrap_or_else(|| {
                strings.push(text.to_owned());
                strings.len() - 1
            })
        };
        let mut tree = Vec::new();
        let element = |tree: &mut Vec<u8>, name: &str, attributes: &[(&str, String)], children: usize| {
            self.number(tree, index(name) as i64, 4);
            self.number(tree, attributes.len() as i64, 4);
            for (name, value) in attributes {
                self.number(tree, index(name) as i64, 4);
                self.number(tree, index(value) as i64, 4);
            }
            self.number(tree, children as i64, 4);
        };
        element(&mut tree, "root", &[], 2);
        element(&mut tree, "metadata", &[], self.types.len());
        for described in &self.types {
            let id = self.id(described.name).to_string();
            let attributes = [("name", described.name.to_owned()), ("id", id)];
            element(&mut tree, "class", &attributes, described.fields.len());
            for field in &described.fields {
                let of = self.id(field.of).to_string();
                let mut attributes = vec![("class", of), ("name", field.name.to_owned())];
                if field.is_constant {
                    attributes.push(("constantPool", "true".to_owned()));
                }
                if field.is_array {
                    attributes.push(("dimension", "1".to_owned()));
                }
                element(&mut tree, "field", &attributes, 1);
                element(&mut tree, "annotation", &[], 0);
            }
        }
        element(&mut tree, "region", &[("locale", "en".to_owned())], 0);
        let mut out = Vec::new();
        for number in [0, 1, 2, 3] {
            self.number(&mut out, number, 8);
        }
        let strings = strings.into_inner();
        self.number(&mut out, strings.len() as i64, 4);
        strings.iter().for_each(|text| self.text(&mut out, text, 3));
        out.extend_from_slice(&tree);
        out
    }
}
