//! The vocabulary of the workspace: profiles, ids and their invariants, without I/O, async, serde or protobuf.
//!
//! All other crates use these types (ARCHITECTURE.md, "Words").

mod block;
mod causes;
mod id;
mod identity;
pub mod label_names;
mod labels;
mod profile;
mod profile_type;
mod push;
mod rendezvous;
mod symbols;
mod tenant;
mod time;

pub use block::{BlockId, Shard};
pub use causes::{append_causes, with_causes};
pub use id::{ItemKey, JobId, ProfileId, WriterId};
pub use identity::Identity;
pub use labels::{Labels, LabelsBuilder};
pub use profile::{Profile, SampleLabel, Samples, ValueType};
pub use profile_type::{ProfileType, ProfileTypeError, ValueSchema};
pub use push::{PushItem, SeriesRows, Span};
pub use rendezvous::rendezvous;
pub use symbols::{Function, Line, Locations, Mapping, NONE, Stacktraces, StringId, Strings, Symbols};
pub use tenant::{TenantError, TenantId};
pub use time::{DAY, HOUR, TimeRange, Times, Window};
