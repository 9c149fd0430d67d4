//! Clients of one role of the members.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::{Member, Membership, Role};

/// Clients of one role, one per member: created at the first call, dropped when the member is gone.
pub struct Callers<T: ?Sized> {
    dial: Box<Dial<T>>,
    connections: Mutex<Connections<T>>,
}

/// Returns a client of the member's role; `None` if it cannot be called.
pub type Dial<T> = dyn Fn(&Member) -> Option<Arc<T>> + Send + Sync;

struct Connections<T: ?Sized> {
    members: watch::Receiver<Arc<[Member]>>,
    /// `(node, client)`.
    callers: Vec<(String, Arc<T>)>,
}

impl<T: ?Sized> Callers<T> {
    pub fn new(
        membership: &dyn Membership,
        dial: impl Fn(&Member) -> Option<Arc<T>> + Send + Sync + 'static,
    ) -> Self {
        let members = membership.members();
        Self { dial: Box::new(dial), connections: Mutex::new(Connections { members, callers: Vec::new() }) }
    }

    /// The live members, in rank order.
    pub fn members(&self) -> Arc<[Member]> {
        let mut connections = self.connections.lock();
        connections.forget_gone();
        connections.members.borrow().clone()
    }

    /// The client of `member`. Calls in flight go on when the member is gone.
    pub fn of(&self, member: &Member) -> Option<Arc<T>> {
        let mut connections = self.connections.lock();
        connections.forget_gone();
        if let Some((_, caller)) = connections.callers.iter().find(|(node, _)| *node == member.node) {
            return Some(caller.clone());
        }
        let caller = (self.dial)(member)?;
        connections.callers.push((member.node.clone(), caller.clone()));
        Some(caller)
    }

    /// All members with `role` that can be called, in rank order; leaving members come last.
    pub fn all(&self, role: Role) -> Vec<(Member, Arc<T>)> {
        let members = self.members();
        let mut all: Vec<&Member> = members.iter().filter(|member| member.has(role)).collect();
        all.sort_by_key(|member| member.is_leaving);
        all.into_iter().filter_map(|member| Some((member.clone(), self.of(member)?))).collect()
    }

    /// Completes when `member` is gone.
    pub async fn gone(&self, member: &Member) {
        let mut members = self.connections.lock().members.clone();
        let is_gone = |members: &Arc<[Member]>| !members.iter().any(|other| other.node == member.node);
        if members.wait_for(is_gone).await.is_err() {
            // The membership itself has ended: it will not report a departure.
            std::future::pending::<()>().await;
        }
    }
}

impl<T: ?Sized> Connections<T> {
    fn forget_gone(&mut self) {
        if self.members.has_changed().unwrap_or(false) {
            let members = self.members.borrow_and_update().clone();
            self.callers.retain(|(node, _)| members.iter().any(|member| member.node == *node));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::FixedMembers;

    #[test]
    fn a_member_is_dialled_once_and_forgotten_when_it_is_gone() {
        let member = |node: &str| Member::new(node, [Role::Ingester]);
        let fixed = FixedMembers::new("", vec![member("a"), member("b")]);
        let dials = Arc::new(AtomicU32::new(0));
        let counted = dials.clone();
        let callers: Callers<str> = Callers::new(&fixed, move |member| {
            counted.fetch_add(1, Ordering::Relaxed);
            (member.node != "b").then(|| Arc::from(member.node.as_str()))
        });
        let calls = |expected: u32| {
            let nodes: Vec<String> =
                callers.all(Role::Ingester).iter().map(|(_, node)| node.to_string()).collect();
            assert_eq!(dials.load(Ordering::Relaxed), expected);
            nodes.join("")
        };
        assert_eq!(calls(2), "a", "b cannot be called");
        assert_eq!(calls(3), "a", "and is tried again");
        fixed.set(vec![member("b"), member("c")]);
        assert_eq!(calls(5), "c");
        fixed.set(vec![member("a"), Member { is_leaving: true, ..member("c") }, member("d")]);
        assert_eq!(calls(7), "adc");
    }
}
