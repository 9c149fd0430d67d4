use std::sync::Arc;

use futures::future::{BoxFuture, ready};
use model::WriterId;
use tokio::sync::watch;

use crate::{Member, Membership};

/// A fixed list of members: static addresses, a single process, tests.
pub struct FixedMembers {
    me: String,
    members: watch::Sender<Arc<[Member]>>,
}

impl FixedMembers {
    /// `me` is the node id of this process, which need not be a member.
    pub fn new(me: impl Into<String>, members: Vec<Member>) -> Self {
        Self { me: me.into(), members: watch::Sender::new(ranked(members)) }
    }

    /// Replaces the list of members.
    pub fn set(&self, members: Vec<Member>) {
        self.members.send_replace(ranked(members));
    }

    fn change_me(&self, change: impl Fn(&mut Member)) {
        self.members.send_modify(|members| {
            let changed = members.iter().cloned().map(|mut member| {
                if member.node == self.me {
                    change(&mut member);
                }
                member
            });
            *members = changed.collect();
        });
    }
}

fn ranked(mut members: Vec<Member>) -> Arc<[Member]> {
    members.sort_by(|a, b| a.rank().cmp(&b.rank()));
    members.into()
}

impl Membership for FixedMembers {
    fn members(&self) -> watch::Receiver<Arc<[Member]>> {
        self.members.subscribe()
    }

    fn set_writers(&self, writers: Vec<WriterId>) {
        self.change_me(|me| me.writers.clone_from(&writers));
    }

    fn leave(&self) -> BoxFuture<'_, ()> {
        self.change_me(|me| me.is_leaving = true);
        Box::pin(ready(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Role;

    fn member(node: &str, started_millis: i64) -> Member {
        Member { started_millis, ..Member::new(node, [Role::Ingester]) }
    }

    #[test]
    fn members_are_in_rank_order() {
        let fixed = FixedMembers::new("a", vec![member("c", 1), member("b", 2), member("a", 2)]);
        let nodes = |fixed: &FixedMembers| {
            let members = fixed.members().borrow().clone();
            members.iter().map(|member| member.node.clone()).collect::<String>()
        };
        assert_eq!(nodes(&fixed), "cab");
        fixed.set(vec![member("e", 9), member("d", 3)]);
        assert_eq!(nodes(&fixed), "de");
    }

    #[tokio::test]
    async fn a_process_changes_only_its_own_entry() {
        let fixed = FixedMembers::new("a", vec![member("a", 1), member("b", 2)]);
        let mut seen = fixed.members();
        fixed.set_writers(vec![WriterId(7)]);
        fixed.leave().await;
        let members = seen.borrow_and_update().clone();
        assert_eq!((members[0].writers.as_slice(), members[0].is_leaving), (&[WriterId(7)][..], true));
        assert_eq!(members[1], member("b", 2));
    }
}
