//! Names of labels with a special meaning. Some are visible to clients but not stored: they follow from the profile
//! type and the service.

/// The service, which every stored series has.
pub const SERVICE_NAME: &str = "service_name";
/// The service under a second name, for clients only.
pub const DERIVED_SERVICE_NAME: &str = "__service_name__";
/// The id of the profile type.
pub const PROFILE_TYPE: &str = "__profile_type__";
/// The first part of the profile type.
pub const NAME: &str = "__name__";
/// The parts of the profile type, in their order. An empty part has no label.
pub const TYPE_PARTS: [&str; 5] = [NAME, "__type__", "__unit__", "__period_type__", "__period_unit__"];

/// Whether `name` is a label of the service, stored or derived.
pub fn is_service_name(name: &str) -> bool {
    name == SERVICE_NAME || name == DERIVED_SERVICE_NAME
}

/// Whether label `name` follows from the profile type.
pub fn is_of_type(name: &str) -> bool {
    name == PROFILE_TYPE || TYPE_PARTS.contains(&name)
}

/// The stored label that holds the value of `name`, unless it follows from the profile type.
pub fn stored_name(name: &str) -> &str {
    if name == DERIVED_SERVICE_NAME { SERVICE_NAME } else { name }
}
