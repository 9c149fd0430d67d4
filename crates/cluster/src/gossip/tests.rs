//! Tests with real datagrams on the loopback interface.

use std::time::Duration;

use super::*;

const PATIENCE: Duration = Duration::from_secs(20);

async fn start(name: &str, label: &str, seeds: &[&Arc<Gossip>]) -> Arc<Gossip> {
    let join: Vec<String> =
        seeds.iter().map(|seed| seed.handle.chitchat_id().gossip_advertise_addr.to_string()).collect();
    let config = Config {
        join_members: join.join(","),
        bind_addr: "127.0.0.1".into(),
        bind_port: 0,
        cluster_label: label.into(),
        ..Config::default()
    };
    let clock = Clock::system();
    let me = Member {
        name: name.into(),
        zone: "z".into(),
        address: ":9095".into(),
        started_millis: clock.unix_millis(),
        ..Member::new(format!("{:032x}", clock.random()), [Role::Ingester, Role::Querier])
    };
    Gossip::start(&config, me, clock, &mut Registry::default()).await.unwrap()
}

fn names(members: &[Member]) -> String {
    let mut names: Vec<&str> = members.iter().map(|member| member.name.as_str()).collect();
    names.sort_unstable();
    names.join("")
}

/// Waits until the members that `gossip` sees satisfy `wanted`; returns the time that it took.
async fn sees(gossip: &Gossip, wanted: impl Fn(&[Member]) -> bool) -> Duration {
    let clock = Clock::system();
    let (mut members, began) = (gossip.members(), clock.monotonic());
    let seen = clock.timeout(PATIENCE, members.wait_for(|members| wanted(members))).await;
    assert!(seen.is_some(), "{:?}", gossip.members.borrow());
    clock.monotonic() - began
}

async fn five() -> Vec<Arc<Gossip>> {
    let first = start("a", "", &[]).await;
    let mut all = vec![first.clone()];
    for name in ["b", "c", "d", "e"] {
        all.push(start(name, "", &[&first]).await);
    }
    for gossip in &all {
        sees(gossip, |members| names(members) == "abcde").await;
    }
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_find_each_other_and_agree_on_their_published_state() {
    let all = five().await;
    let writers: Vec<WriterId> = (0..100).map(WriterId).collect();
    all[2].set_writers(writers.clone());
    for gossip in &all {
        let has_all = |members: &[Member]| members.iter().any(|m| m.name == "c" && m.writers == writers);
        sees(gossip, has_all).await;
    }
    all[2].set_writers(vec![WriterId(7)]);
    for gossip in &all {
        let has_one =
            |members: &[Member]| members.iter().any(|m| m.name == "c" && m.writers == [WriterId(7)]);
        sees(gossip, has_one).await;
        assert_eq!(*gossip.members().borrow(), *all[0].members().borrow());
    }
    let member = all[0].members().borrow()[1].clone();
    assert_eq!((member.address.as_str(), member.zone.as_str()), ("127.0.0.1:9095", "z"));
    assert_eq!(member.roles, [Role::Ingester, Role::Querier].into());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_is_called_at_its_advertised_address() {
    let check = async |listens: &str, advertise: &str, expected: &str| {
        let config = Config {
            bind_addr: "127.0.0.1".into(),
            bind_port: 0,
            advertise_addr: advertise.into(),
            ..Config::default()
        };
        let me = Member { address: listens.into(), ..Member::new("me", [Role::Querier]) };
        let gossip = Gossip::start(&config, me, Clock::system(), &mut Registry::default()).await.unwrap();
        assert_eq!(gossip.members().borrow()[0].address, expected, "{listens} {advertise}");
    };
    check("127.0.0.1:9095", "", "127.0.0.1:9095").await;
    check("127.0.0.1:9095", "10.0.0.7", "10.0.0.7:9095").await;
    check("[::1]:9095", "fd00::7", "[fd00::7]:9095").await;
    check(":9095", "10.0.0.7", "10.0.0.7:9095").await;
    check(":9095", "", "127.0.0.1:9095").await;
    check("", "10.0.0.7", "").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leaving_member_is_known_to_leave_and_then_gone_at_once() {
    let all = five().await;
    let leaves = all[4].clone();
    let left = Clock::system().spawn(async move {
        leaves.leave().await;
        leaves.stop().await;
    });
    for gossip in &all[..4] {
        sees(gossip, |members| members.iter().all(|m| m.is_leaving == (m.name == "e"))).await;
    }
    left.await.unwrap();
    for gossip in &all[..4] {
        let took = sees(gossip, |members| names(members) == "abcd").await;
        assert!(took < Duration::from_secs(1), "{took:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_death_is_noticed_soon_and_a_pause_of_a_second_is_not() {
    let all = five().await;
    let chitchat = all[3].handle.chitchat();
    let paused = chitchat.lock().await;
    Clock::system().sleep(Duration::from_millis(1200)).await;
    for gossip in &all[..3] {
        assert_eq!(names(&gossip.members().borrow()), "abcde");
    }
    drop(paused);
    all[4].handle.initiate_shutdown().unwrap();
    for gossip in &all[..4] {
        let took = sees(gossip, |members| names(members) == "abcd").await;
        assert!(took < Duration::from_secs(5), "{took:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gossip_of_a_cluster_with_another_label_is_ignored() {
    let a = start("a", "one", &[]).await;
    let b = start("b", "two", &[&a]).await;
    let c = start("c", "one", &[&a, &b]).await;
    sees(&a, |members| names(members) == "ac").await;
    sees(&c, |members| names(members) == "ac").await;
    assert_eq!(names(&b.members().borrow()), "b");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_seed_that_starts_later_is_found_later() {
    let port = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let clock = Clock::system();
    let config = |join: &str, bind_port| Config {
        join_members: join.into(),
        bind_addr: "127.0.0.1".into(),
        bind_port,
        ..Config::default()
    };
    let early = config(&format!("nowhere.invalid,localhost:{port}"), 0);
    let me = |name: &str| Member::new(name, [Role::Querier]);
    let early = Gossip::start(&early, me("early"), clock.clone(), &mut Registry::default()).await.unwrap();
    clock.sleep(Duration::from_millis(300)).await;
    let late = config("", port);
    let late = Gossip::start(&late, me("late"), clock, &mut Registry::default()).await.unwrap();
    for gossip in [&early, &late] {
        sees(gossip, |members| members.len() == 2).await;
    }
}

#[tokio::test]
async fn a_port_in_use_is_named_in_the_error() {
    let taken = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let bind_port = taken.local_addr().unwrap().port();
    let config = Config { bind_addr: "127.0.0.1".into(), bind_port, ..Config::default() };
    let me = Member::new("a", []);
    let started = Gossip::start(&config, me, Clock::system(), &mut Registry::default()).await;
    let error = started.err().unwrap().to_string();
    assert!(error.contains(&format!("127.0.0.1:{bind_port}")), "{error}");
}

#[test]
fn an_ip_address_may_be_in_brackets_as_before_a_port() {
    for (text, expected) in [
        ("::1", Some("::1")),
        ("[::1]", Some("::1")),
        ("::", Some("::")),
        ("127.0.0.1", Some("127.0.0.1")),
        ("[127.0.0.1]", None),
        ("[::1", None),
        ("::1]", None),
        ("host", None),
    ] {
        assert_eq!(ip_address(text).map(|address| address.to_string()).as_deref(), expected, "{text}");
    }
}
