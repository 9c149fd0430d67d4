use model::Strings;

/// The stacktraces of a dataset as one tree of function names: all that flame graphs need.
///
/// Node 0 is the root and has no name. A parent precedes its children (`parents[i] < i`), so totals
/// are one backward pass. Inlined lines are nodes of their own; a location without lines is named
/// `<binary>!0x<address>`. Children of one parent have distinct names.
#[derive(Clone, Debug, Default)]
pub struct NameTree {
    pub names: Strings,
    /// Index into `names` per node.
    pub name: Vec<u32>,
    /// Parent per node; the root's is 0.
    pub parents: Vec<u32>,
    /// Per stacktrace id of the dataset, the node that its leaf is.
    pub leaves: Vec<u32>,
}
