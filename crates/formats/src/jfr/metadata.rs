//! The metadata of a chunk: the types of its events and constants, and the fields of each.
//!
//! Owns: the string table and the tree of elements, which is read without recursion.
//! Does not own: what fields mean, or how values of a type are read (`layout.rs`).

use std::borrow::Cow;

use hashbrown::HashMap;

use super::chunk::{Chunk, METADATA};
use super::reader::{Reader, Width};
use super::{Fault, Flaw};

/// Deepest nesting of elements; real ones have five levels.
const DEPTH_MAX: usize = 32;

/// Outside of every chunk.
const NO_OFFSET: u32 = u32::MAX;

/// The types of a chunk.
pub(super) struct Metadata<'a> {
    /// A reader of the chunk, for texts.
    reader: Reader<'a>,
    /// Offset of each string of the table; [`NO_OFFSET`] of one that is too long for a name.
    strings: Vec<u32>,
    types: Vec<Type>,
    /// Index of each type by its id; of equal ids the first one counts.
    ids: HashMap<u64, u32>,
    fields: Vec<Field>,
}

#[derive(Clone, Copy)]
pub(super) struct Type {
    pub(super) id: u64,
    name: u32,
    /// Its fields are `fields[first_field..end_field]`.
    first_field: u32,
    end_field: u32,
}

#[derive(Clone, Copy)]
pub(super) struct Field {
    name: u32,
    /// Id of its type.
    pub(super) of: u64,
    /// Whether values are keys of constants.
    pub(super) is_constant: bool,
    pub(super) is_array: bool,
}

/// The attributes of an element that count, of whatever kind it is.
#[derive(Clone, Copy, Default)]
struct Attributes {
    id: u64,
    name: u32,
    of: u64,
    is_constant: bool,
    is_array: bool,
}

impl From<Attributes> for Field {
    fn from(Attributes { name, of, is_constant, is_array, .. }: Attributes) -> Self {
        Self { name, of, is_constant, is_array }
    }
}

impl<'a> Metadata<'a> {
    /// # Errors
    /// If the metadata of the chunk are malformed.
    pub(super) fn read(chunk: &Chunk<'a>) -> Result<Self, Fault> {
        let (event, _) = chunk.event(chunk.metadata)?;
        let mut fields = event.fields;
        if event.kind != METADATA {
            return Err(Fault::new(chunk.metadata, Flaw::NoMetadata));
        }
        // Start, duration and id of the metadata.
        for _ in 0..3 {
            fields.number(Width::Long)?;
        }
        let mut strings = Vec::new();
        for _ in 0..fields.count()? {
            let offset = fields.at() as u32;
            let text = fields.text()?;
            strings.push(if text == text.if_short() { offset } else { NO_OFFSET });
        }
        let mut metadata =
            Self { reader: fields, strings, types: Vec::new(), ids: HashMap::new(), fields: Vec::new() };
        metadata.elements(fields)?;
        for (index, described) in metadata.types.iter().enumerate() {
            metadata.ids.entry(described.id).or_insert(index as u32);
        }
        Ok(metadata)
    }

    /// Reads the tree of elements in the order of the bytes. Fields belong to the type before them.
    fn elements(&mut self, mut from: Reader<'a>) -> Result<(), Fault> {
        // Elements left on each level.
        let mut levels = vec![1_usize];
        while let Some(left) = levels.last_mut() {
            if *left == 0 {
                levels.pop();
                continue;
            }
            *left -= 1;
            let name = self.string(&mut from)?;
            let attributes = self.attributes(&mut from)?;
            match &*self.text(name) {
                "class" => {
                    let first_field = self.fields.len() as u32;
                    let Attributes { id, name, .. } = attributes;
                    self.types.push(Type { id, name, first_field, end_field: first_field });
                }
                "field" => self.fields.push(attributes.into()),
                _ => {}
            }
            if let Some(described) = self.types.last_mut() {
                described.end_field = self.fields.len() as u32;
            }
            let children = from.count()?;
            if levels.len() == DEPTH_MAX {
                return Err(from.fault(Flaw::ElementDepth));
            }
            levels.push(children);
        }
        Ok(())
    }

    fn attributes(&self, from: &mut Reader) -> Result<Attributes, Fault> {
        let mut attributes = Attributes::default();
        for _ in 0..from.count()? {
            let (name, value) = (self.string(from)?, self.string(from)?);
            let number = || self.text(value).parse().unwrap_or_default();
            match &*self.text(name) {
                "id" => attributes.id = number(),
                "name" => attributes.name = value,
                "class" => attributes.of = number(),
                "constantPool" => attributes.is_constant = self.text(value) == "true",
                "dimension" => attributes.is_array = number() > 0,
                _ => {}
            }
        }
        Ok(attributes)
    }

    /// Reads an index of the string table.
    fn string(&self, from: &mut Reader) -> Result<u32, Fault> {
        let before = *from;
        let index = from.number(Width::Int)?;
        let strings = self.strings.len();
        match u32::try_from(index) {
            Ok(known) if (known as usize) < strings => Ok(known),
            _ => Err(before.fault(Flaw::StringIndex { index, strings })),
        }
    }

    /// String `index` of the table; empty if it is not there, or too long.
    fn text(&self, index: u32) -> Cow<'_, str> {
        let Some(offset) = self.strings.get(index as usize) else { return Cow::Borrowed("") };
        let mut reader = self.reader.moved_to(*offset as usize);
        match reader.text() {
            Ok(text) => self.reader.text_of(text),
            Err(_) => Cow::Borrowed(""),
        }
    }

    pub(super) fn types(&self) -> &[Type] {
        &self.types
    }

    /// The first type with this name.
    pub(super) fn named(&self, name: &str) -> Option<&Type> {
        self.types.iter().find(|described| self.name_of(described) == name)
    }

    pub(super) fn by_id(&self, id: u64) -> Option<&Type> {
        self.ids.get(&id).map(|index| &self.types[*index as usize])
    }

    pub(super) fn name_of(&self, described: &Type) -> Cow<'_, str> {
        self.text(described.name)
    }

    pub(super) fn field_count(&self) -> usize {
        self.fields.len()
    }

    pub(super) fn fields_of(&self, described: &Type) -> &[Field] {
        &self.fields[described.first_field as usize..described.end_field as usize]
    }

    pub(super) fn field_name(&self, field: &Field) -> Cow<'_, str> {
        self.text(field.name)
    }
}
