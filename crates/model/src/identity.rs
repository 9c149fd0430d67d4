use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// A shared value as the key of a map: compared by address, which is cheaper than by content, so an equal copy is another
/// key. It borrows the `Arc`: no other value gets the address while the key exists.
pub struct Identity<'a, T: ?Sized>(pub &'a Arc<T>);

impl<T: ?Sized> PartialEq for Identity<'_, T> {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(self.0, other.0)
    }
}

impl<T: ?Sized> Eq for Identity<'_, T> {}

impl<T: ?Sized> Hash for Identity<'_, T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Arc::as_ptr(self.0).cast::<()>().hash(state);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn clones_are_one_key_and_equal_copies_are_two() {
        let (text, copy): (Arc<str>, Arc<str>) = ("a".into(), "a".into());
        let clone = text.clone();
        let keys = HashSet::from([Identity(&text), Identity(&clone), Identity(&copy)]);
        assert_eq!(keys.len(), 2);
        assert!(keys.contains(&Identity(&copy)) && !keys.contains(&Identity(&"a".into())));
    }
}
