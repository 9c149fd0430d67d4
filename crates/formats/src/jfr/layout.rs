//! How the values of a type are read: a flat list of steps, made of the metadata of a chunk.
//!
//! Owns: the steps of a type, with nested types expanded, and their execution; both without recursion.
//! Does not own: which fields are wanted, and their meaning.
//!
//! Each step reads at least one byte, or repeats steps that do: so a value never costs more than its bytes.

use super::metadata::{Field, Metadata, Type};
use super::reader::{Reader, Text, Width};
use super::{Fault, Flaw};

/// Most steps of all layouts of one chunk per field in its metadata. Types in types repeat the fields of a type, and
/// constants are both skipped and read.
const STEPS_PER_FIELD_MAX: usize = 8;

/// Deepest nesting of types in types, and of arrays in arrays.
const DEPTH_MAX: usize = 8;

/// The type of a wanted field.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// A number, or a truth value.
    Number,
    Text,
    /// The key of a constant of the type with this name.
    KeyOf(&'static str),
}

/// A field to be read; those that a type lacks, or has with another type, are left out.
#[derive(Clone, Copy)]
pub(super) struct Wanted {
    /// Names of the field and of those that it is nested in, outermost first.
    pub(super) path: &'static [&'static str],
    pub(super) kind: Kind,
}

/// What a layout passes on.
#[derive(Clone, Copy)]
pub(super) enum Value {
    /// A number, or the bits of a key.
    Number(i64),
    Text(Text),
    /// The end of one element of an array that has wanted fields.
    Row,
}

/// How a value without parts is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Form {
    Byte,
    Fixed(u8),
    Number(Width),
    Text,
    /// The key of a text.
    TextKey,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    /// Reads a value, and passes it on if it has a slot.
    Value { form: Form, slot: Option<u8> },
    /// Reads a count, and repeats the next `steps` steps as often.
    Repeat { steps: u32 },
    /// Passes on [`Value::Row`]; only after steps that read something.
    Row,
}

/// The steps of a type.
#[derive(Default, Debug)]
pub(super) struct Layout {
    steps: Vec<Step>,
}

/// A type whose fields are being expanded.
struct Open<'m> {
    fields: &'m [Field],
    next: usize,
    /// Its `Repeat`, if it is the type of an array.
    repeat: Option<usize>,
}

/// Makes the layouts of one chunk.
pub(super) struct Compiler<'m, 'a> {
    metadata: &'m Metadata<'a>,
    /// Steps left of [`STEPS_PER_FIELD_MAX`] per field.
    left: usize,
}

impl<'m, 'a> Compiler<'m, 'a> {
    pub(super) fn new(metadata: &'m Metadata<'a>) -> Self {
        Self { metadata, left: metadata.field_count() * STEPS_PER_FIELD_MAX }
    }

    /// The layout of `described`. The value of `wanted[i]` is passed on with slot `i`; an empty path is the whole
    /// value of a type without parts.
    ///
    /// # Errors
    /// If the type has a field of an unknown type, contains itself, or has too many steps.
    pub(super) fn layout(&mut self, described: &Type, wanted: &[Wanted]) -> Result<Layout, Flaw> {
        let metadata = self.metadata;
        let too_large = || Flaw::TypeSize { name: metadata.name_of(described).chars().take(100).collect() };
        let mut steps = Vec::new();
        if let Some(form) = form(&metadata.name_of(described)) {
            let slot = wanted.iter().position(|wanted| wanted.path.is_empty()).map(|slot| slot as u8);
            steps.push(Step::Value { form, slot });
            return Ok(Layout { steps });
        }
        let mut path = Vec::new();
        let mut open = vec![Open { fields: metadata.fields_of(described), next: 0, repeat: None }];
        while let Some(top) = open.last_mut() {
            let Some(field) = top.fields.get(top.next) else {
                if let Some(repeat) = top.repeat {
                    close(&mut steps, repeat);
                }
                open.pop();
                path.pop();
                continue;
            };
            top.next += 1;
            self.left = self.left.checked_sub(1).ok_or_else(too_large)?;
            let of = metadata.by_id(field.of).ok_or(Flaw::UnknownType { id: field.of })?;
            let of_name = metadata.name_of(of);
            let form = match (field.is_constant, form(&of_name)) {
                (true, Some(Form::Text)) => Some(Form::TextKey),
                (true, _) => Some(Form::Number(Width::Long)),
                (false, form) => form,
            };
            let repeat = field.is_array.then_some(steps.len());
            if field.is_array {
                steps.push(Step::Repeat { steps: 0 });
            }
            match form {
                Some(form) => {
                    let name = metadata.field_name(field);
                    let is_kind = |kind| match kind {
                        Kind::KeyOf(name) => field.is_constant && of_name == name,
                        Kind::Text => matches!(form, Form::Text | Form::TextKey),
                        Kind::Number => !field.is_constant && matches!(form, Form::Byte | Form::Number(_)),
                    };
                    let slot = wanted.iter().position(|wanted| {
                        wanted.path.split_last().is_some_and(|(last, within)| {
                            *last == name && within.iter().eq(path.iter()) && is_kind(wanted.kind)
                        })
                    });
                    steps.push(Step::Value { form, slot: slot.map(|slot| slot as u8) });
                    if let Some(repeat) = repeat {
                        close(&mut steps, repeat);
                    }
                }
                None if open.len() == DEPTH_MAX => return Err(too_large()),
                None => {
                    path.push(metadata.field_name(field));
                    open.push(Open { fields: metadata.fields_of(of), next: 0, repeat });
                }
            }
        }
        Ok(Layout { steps })
    }
}

/// Ends the repeated steps that begin after index `repeat`.
fn close(steps: &mut Vec<Step>, repeat: usize) {
    let is_wanted = |step: &Step| matches!(step, Step::Value { slot: Some(_), .. });
    if steps[repeat + 1..].iter().any(is_wanted) {
        steps.push(Step::Row);
    }
    steps[repeat] = Step::Repeat { steps: (steps.len() - repeat - 1) as u32 };
}

fn form(type_name: &str) -> Option<Form> {
    Some(match type_name {
        "boolean" | "byte" => Form::Byte,
        "float" => Form::Fixed(4),
        "double" => Form::Fixed(8),
        "short" | "char" => Form::Number(Width::Short),
        "int" => Form::Number(Width::Int),
        "long" => Form::Number(Width::Long),
        "java.lang.String" => Form::Text,
        _ => return None,
    })
}

/// Steps to be repeated.
#[derive(Clone, Copy, Default)]
struct Repetition {
    first: usize,
    end: usize,
    left: usize,
}

impl Layout {
    /// Reads one value of the type; `take` receives what is wanted of it, by slot.
    ///
    /// # Errors
    /// If it runs past the end.
    #[inline]
    pub(super) fn read(&self, from: &mut Reader, take: &mut impl FnMut(u8, Value)) -> Result<(), Fault> {
        let mut repetitions = [Repetition::default(); DEPTH_MAX + 1];
        let mut depth = 0;
        let mut next = 0;
        loop {
            if depth > 0 && next == repetitions[depth - 1].end {
                let repetition = &mut repetitions[depth - 1];
                if repetition.left == 0 {
                    depth -= 1;
                } else {
                    repetition.left -= 1;
                    next = repetition.first;
                }
                continue;
            }
            let Some(step) = self.steps.get(next) else { return Ok(()) };
            next += 1;
            match *step {
                Step::Value { form, slot } => {
                    let value = form.read(from)?;
                    if let Some(slot) = slot {
                        take(slot, value);
                    }
                }
                Step::Row => take(u8::MAX, Value::Row),
                Step::Repeat { steps: 0 } => {
                    from.number(Width::Int)?;
                }
                Step::Repeat { steps } => {
                    let count = from.count()?;
                    let end = next + steps as usize;
                    match count.checked_sub(1) {
                        None => next = end,
                        Some(left) => {
                            repetitions[depth] = Repetition { first: next, end, left };
                            depth += 1;
                        }
                    }
                }
            }
        }
    }
}

impl Form {
    #[inline(always)]
    fn read(self, from: &mut Reader) -> Result<Value, Fault> {
        Ok(match self {
            Self::Byte => Value::Number(i64::from(from.byte()? as i8)),
            Self::Number(width) => Value::Number(from.number(width)?),
            Self::Text => Value::Text(from.text()?),
            Self::TextKey => Value::Text(Text::Pooled(from.key()?)),
            Self::Fixed(bytes) => {
                from.skip(bytes.into())?;
                Value::Number(0)
            }
        })
    }
}
