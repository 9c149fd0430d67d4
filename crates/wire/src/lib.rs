//! The protobuf messages and services, generated from `proto/`, and the descriptors of the public ones.
//!
//! Owns: nothing but the generated code. The contract is `proto/`: package names, message names,
//! field numbers and field names of public messages are those of Pyroscope, so that its clients work
//! unchanged; [`pyrograph`] holds the messages between roles (`rpc`).
//!
//! Does not own: how a message travels (`edge`), or its meaning (the roles).
//!
//! `RawSample::raw_profile` and the tree bytes are `bytes::Bytes`, all other bytes and strings are
//! owned. A field `profile_typeID` is called `profile_type_id` in Rust and `profileTypeID` in JSON.

#![allow(
    unreachable_pub,
    clippy::allow_attributes_without_reason,
    clippy::large_enum_variant,
    clippy::doc_lazy_continuation,
    reason = "the code generator chooses names, sizes and visibility"
)]

mod codec;

use std::sync::LazyLock;

use prost_reflect::DescriptorPool;

pub mod capabilities {
    pub mod v1 {
        tonic::include_proto!("capabilities.v1");
    }
}

/// The pprof format.
pub mod google {
    pub mod v1 {
        tonic::include_proto!("google.v1");
    }
}

pub mod grpc {
    pub mod health {
        pub mod v1 {
            tonic::include_proto!("grpc.health.v1");
        }
    }
}

pub mod push {
    pub mod v1 {
        tonic::include_proto!("push.v1");
    }
}

/// The messages between roles. All fields `bytes` share the buffer of the message.
pub mod pyrograph {
    pub mod ingester {
        pub mod v1 {
            tonic::include_proto!("pyrograph.ingester.v1");
        }
    }
    pub mod leaf {
        pub mod v1 {
            tonic::include_proto!("pyrograph.leaf.v1");
        }
    }
    pub mod metastore {
        pub mod v1 {
            tonic::include_proto!("pyrograph.metastore.v1");
        }
    }
    pub mod rpc {
        pub mod v1 {
            tonic::include_proto!("pyrograph.rpc.v1");
        }
    }
}

pub mod querier {
    pub mod v1 {
        tonic::include_proto!("querier.v1");
    }
}

pub mod settings {
    pub mod v1 {
        tonic::include_proto!("settings.v1");
    }
}

pub mod types {
    pub mod v1 {
        tonic::include_proto!("types.v1");
    }
}

pub mod version {
    pub mod v1 {
        tonic::include_proto!("version.v1");
    }
}

/// The encoded `google.protobuf.FileDescriptorSet` of the public part of `proto/`.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// The descriptors of the public part of `proto/`, for code that handles messages by name, such as JSON.
pub fn descriptor_pool() -> &'static DescriptorPool {
    static POOL: LazyLock<DescriptorPool> = LazyLock::new(|| {
        #[allow(clippy::expect_used, reason = "the build script wrote these bytes")]
        DescriptorPool::decode(DESCRIPTORS).expect("the build wrote these descriptors")
    });
    &POOL
}

#[cfg(test)]
mod tests {
    use prost_reflect::{DynamicMessage, SerializeOptions};

    use super::*;

    #[track_caller]
    fn check_json(message: &str, json: &str, expected: &str) {
        let descriptor = descriptor_pool().get_message_by_name(message).unwrap();
        let mut input = serde_json::Deserializer::from_str(json);
        let options = prost_reflect::DeserializeOptions::new().deny_unknown_fields(false);
        let message = DynamicMessage::deserialize_with_options(descriptor, &mut input, &options).unwrap();
        let mut output = serde_json::Serializer::new(Vec::new());
        message.serialize_with_options(&mut output, &SerializeOptions::new()).unwrap();
        assert_eq!(String::from_utf8(output.into_inner()).unwrap(), expected);
    }

    #[test]
    fn json_names_match_the_contract() {
        check_json(
            "querier.v1.SelectMergeProfileRequest",
            r#"{"profile_typeID":"a","label_selector":"{}","start":1,"end":"2","stackTraceSelector":{"call_site":[{"name":"f"}]},"maxNodes":3,"unheard":[1]}"#,
            r#"{"profileTypeID":"a","labelSelector":"{}","start":"1","end":"2","maxNodes":"3","stackTraceSelector":{"callSite":[{"name":"f"}]}}"#,
        );
        check_json(
            "push.v1.RawSample",
            r#"{"ID":"x","rawProfile":"AAE="}"#,
            r#"{"rawProfile":"AAE=","ID":"x"}"#,
        );
        check_json("version.v1.VersionResponse", r#"{"QuerierAPI":1}"#, r#"{"QuerierAPI":"1"}"#);
        check_json("settings.v1.Setting", r#"{"modifiedAt":"5"}"#, r#"{"modifiedAt":"5"}"#);
        check_json(
            "querier.v1.FlameGraphDiff",
            r#"{"leftTicks":"4","rightTicks":3,"max_self":"4"}"#,
            r#"{"maxSelf":"4","leftTicks":"4","rightTicks":"3"}"#,
        );
        check_json(
            "querier.v1.SeriesResponse",
            r#"{"labels_set":[{"labels":[{"name":"a","value":""}]}]}"#,
            r#"{"labelsSet":[{"labels":[{"name":"a"}]}]}"#,
        );
        check_json("types.v1.HeatmapSlot", r#"{"y_min":[0.5,"NaN"]}"#, r#"{"yMin":[0.5,"NaN"]}"#);
        check_json(
            "querier.v1.SelectMergeStacktracesRequest",
            r#"{"format":"PROFILE_FORMAT_PPROF","async":{"type":1},"max_nodes":null}"#,
            r#"{"format":"PROFILE_FORMAT_PPROF","async":{"type":"ASYNC_QUERY_TYPE_FORCE"}}"#,
        );
    }

    #[test]
    fn no_public_method_streams() {
        for service in descriptor_pool().services() {
            for method in service.methods() {
                assert!(!method.is_client_streaming() && !method.is_server_streaming());
            }
        }
    }
}
