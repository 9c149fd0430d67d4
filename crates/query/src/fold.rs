//! The input of a fold, and the errors of folding a dataset into an answer.

use std::sync::Arc;

use block::{Batch, DatasetIndex, NameTree};
use memory::Refusal;
use model::Symbols;

use crate::cells::CellPart;
use crate::scan::{Samples, Selection};

/// A dataset to fold. Tree, symbols and samples are present if [`crate::Query::needs`] asks for them.
pub struct Dataset<'a> {
    /// Index of the rows to scan; empty if cells answer everything.
    pub index: &'a DatasetIndex,
    pub selection: &'a Selection,
    /// Sums of profiles outside of the selection.
    pub cells: &'a [CellPart],
    pub tree: Option<Arc<NameTree>>,
    pub symbols: Option<Arc<Symbols>>,
    pub samples: Option<&'a dyn Samples>,
}

/// Why a dataset could not be added to an answer.
#[derive(Debug, thiserror::Error)]
pub enum FoldError {
    #[error(transparent)]
    TooLarge(#[from] TooLarge),
    #[error("the answer {0}; ask for a shorter time range or fewer series")]
    Memory(#[from] Refusal),
    #[error(transparent)]
    Block(#[from] block::Error),
}

/// An answer has outgrown the limit of one query.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the answer has more than {limit} {resource}; ask for a shorter time range or fewer series")]
pub struct TooLarge {
    pub resource: &'static str,
    pub limit: usize,
}

impl Dataset<'_> {
    /// Calls `each` with all samples and all sums of cells, of all columns.
    pub(crate) fn scan_all(&self, mut each: impl FnMut(Batch<'_>)) -> Result<(), block::Error> {
        let Some(samples) = self.samples else { return Ok(()) };
        for column in 0..self.selection.columns.len() {
            samples.scan(column, &mut each)?;
        }
        if !self.cells.is_empty() {
            samples.scan_cells(&mut each)?;
        }
        Ok(())
    }
}
