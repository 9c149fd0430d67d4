//! pprof (`google.v1.Profile`, the same bytes as `perftools.profiles.Profile`) ⇄ [`model::Profile`].

mod decode;
mod encode;
mod reader;

pub use decode::{DecodedProfile, Flaw, Limits, decode, decode_dotnet};
pub use encode::encode;
pub use reader::Error;
pub(crate) use reader::Reader;
