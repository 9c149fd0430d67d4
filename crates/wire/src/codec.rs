//! A protobuf codec for tonic that answers `invalid_argument` to undecodable messages.
//!
//! tonic's own codec answers `internal`, after which agents retry the same message.

use std::marker::PhantomData;

use prost::Message;
use tonic::Status;
use tonic::codec::{DecodeBuf, Decoder};
use tonic_prost::{ProstCodec, ProstEncoder};

/// Encodes `T`, decodes `U`.
#[derive(Debug, Clone, Default)]
pub struct Codec<T, U>(PhantomData<(T, U)>);

impl<T, U> tonic::codec::Codec for Codec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = ProstEncoder<T>;
    type Decoder = BlamingDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        ProstCodec::<T, U>::default().encoder()
    }

    fn decoder(&mut self) -> Self::Decoder {
        BlamingDecoder(PhantomData)
    }
}

pub struct BlamingDecoder<U>(PhantomData<U>);

impl<U: Message + Default> Decoder for BlamingDecoder<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, bytes: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        match U::decode(bytes) {
            Ok(message) => Ok(Some(message)),
            Err(error) => Err(Status::invalid_argument(format!("unmarshal message: {error}"))),
        }
    }
}
