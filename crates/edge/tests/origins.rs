//! Rights of pages of other origins, with requests as browsers send them.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop where it is")]

mod echo;

use echo::{Answer, app, ask};
use edge::{App, Hosts, Origins};

const HOST: (&str, &str) = ("host", "pyrograph.example:4040");
const JSON: (&str, &str) = ("content-type", "application/json");
const FORM: (&str, &str) = ("content-type", "application/x-www-form-urlencoded");
const TEXT: (&str, &str) = ("content-type", "text/plain");
const EVIL: (&str, &str) = ("origin", "https://evil.example");
const OTHER_PORT: (&str, &str) = ("origin", "http://pyrograph.example:3000");
const GRAFANA: (&str, &str) = ("origin", "https://grafana.example");
const SETTINGS: &str = "/settings.v1.SettingsService/Get";
const PUSH: &str = "/push.v1.PusherService/Push";

fn site(value: &'static str) -> (&'static str, &'static str) {
    ("sec-fetch-site", value)
}

fn open_to(origins: &str) -> App {
    app(|config| config.origins = Origins::parse(origins).unwrap())
}

fn named(list: &str, is_loopback: bool) -> App {
    app(|config| config.hosts = Hosts::parse(list, is_loopback).unwrap())
}

#[track_caller]
fn check_forbidden(answer: &Answer, message_part: &str) {
    assert_eq!(answer.status, 403, "{answer:?}");
    assert!(answer.text().contains(message_part), "{answer:?}");
    assert!(answer.text().contains(r#""code":"permission_denied""#), "{answer:?}");
}

#[tokio::test]
async fn a_page_of_another_origin_cannot_change_data() {
    let app = app(|_| ());
    for path in ["/length", "/administer", "/unknown", PUSH] {
        for sent in [
            &[HOST, EVIL, TEXT][..],
            &[HOST, EVIL, JSON],
            &[HOST, OTHER_PORT, FORM],
            &[HOST, ("origin", "null"), TEXT],
            &[HOST, ("origin", ""), TEXT],
            &[HOST, EVIL, ("origin", "http://pyrograph.example:4040"), TEXT],
            &[HOST, EVIL, site("cross-site"), TEXT],
            &[HOST, OTHER_PORT, site("same-site"), TEXT],
            &[HOST, site("cross-site"), JSON],
            &[HOST, site("something-new"), JSON],
            &[EVIL, TEXT],
            &[HOST, EVIL, ("x-forwarded-host", "evil.example"), TEXT],
        ] {
            check_forbidden(&ask(&app, "POST", path, sent, "x").await, "-server.cors-allowed-origins");
        }
    }
}

#[tokio::test]
async fn agents_and_command_lines_may_send_any_content_type() {
    let app = app(|_| ());
    for sent in [&[][..], &[FORM], &[TEXT], &[("content-type", "multipart/form-data; boundary=x")]] {
        assert_eq!(ask(&app, "POST", "/length", sent, "four").await.text(), "4");
    }
}

#[tokio::test]
async fn a_page_of_this_server_may_change_data() {
    let app = app(|_| ());
    for sent in [
        &[HOST, ("origin", "http://pyrograph.example:4040")][..],
        &[("host", "pyrograph.example"), ("origin", "https://pyrograph.example")],
        &[("host", "pyrograph.example:443"), ("origin", "https://pyrograph.example")],
        &[("host", "PYROGRAPH.example:80"), ("origin", "http://pyrograph.example")],
        // A proxy with another public name: the browser says that the origin is the same.
        &[("host", "127.0.0.1:4040"), ("origin", "https://profiles.example"), site("same-origin")],
        &[HOST, site("none")],
    ] {
        assert_eq!(ask(&app, "POST", "/length", sent, "four").await.text(), "4", "{sent:?}");
    }
    // HTTP/2 has the name in the URI.
    let origin = ("origin", "http://pyrograph.example:4040");
    assert_eq!(
        ask(&app, "POST", "http://pyrograph.example:4040/length", &[origin], "four").await.text(),
        "4"
    );
    check_forbidden(&ask(&app, "POST", "http://other.example/length", &[HOST, origin], "").await, "may not");
}

#[tokio::test]
async fn deletions_and_settings_must_be_json() {
    let app = app(|_| ());
    assert_eq!(ask(&app, "POST", "/administer", &[JSON], "{}").await.text(), "{}");
    let charset = ("content-type", "application/json; charset=utf-8");
    assert_eq!(ask(&app, "POST", "/administer", &[charset], "{}").await.status, 200);
    for sent in [&[][..], &[FORM], &[TEXT], &[JSON, TEXT], &[("content-type", "text/json")]] {
        let answer = ask(&app, "POST", "/administer", sent, "{}").await;
        assert_eq!(answer.status, 415, "{answer:?}");
        assert!(answer.text().contains("is not application/json"), "{answer:?}");
    }
}

#[tokio::test]
async fn by_default_no_other_origin_may_read_answers() {
    let app = app(|_| ());
    for (method, path, sent) in [
        ("GET", "/large", &[HOST, EVIL][..]),
        ("POST", SETTINGS, &[HOST, EVIL, JSON]),
        ("POST", "/length", &[HOST, EVIL]),
        ("OPTIONS", "/length", &[HOST, EVIL, ("access-control-request-method", "POST")]),
    ] {
        let answer = ask(&app, method, path, sent, "").await;
        assert_eq!(answer.header("access-control-allow-origin"), "", "{answer:?}");
        assert_eq!(answer.header("cross-origin-resource-policy"), "same-origin");
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
    }
}

#[tokio::test]
async fn an_allowed_origin_may_read_and_change() {
    let app = open_to("https://grafana.example, http://other:3000");
    let answer = ask(&app, "POST", "/length", &[HOST, GRAFANA, site("cross-site")], "four").await;
    assert_eq!((answer.status, answer.text()), (200, "4"));
    assert_eq!(answer.header("access-control-allow-origin"), "https://grafana.example");
    assert!(answer.header("access-control-expose-headers").contains("x-pyrograph-partial"));
    assert_eq!(answer.header("vary"), "Origin");
    let answer = ask(&app, "GET", "/panic", &[HOST, GRAFANA], "").await;
    assert_eq!(
        (answer.status, answer.header("access-control-allow-origin")),
        (500, "https://grafana.example")
    );
    check_forbidden(&ask(&app, "POST", "/length", &[HOST, EVIL], "").await, "may not");
    let answer = ask(&app, "GET", "/large", &[HOST, EVIL], "").await;
    assert_eq!((answer.status, answer.header("access-control-allow-origin")), (200, ""));
}

#[tokio::test]
async fn a_wildcard_allows_reads_but_no_changes() {
    let app = open_to("*");
    let answer = ask(&app, "POST", SETTINGS, &[HOST, EVIL, JSON], "{}").await;
    assert_eq!((answer.status, answer.header("access-control-allow-origin")), (200, "*"));
    for path in ["/length", PUSH] {
        let answer = ask(&app, "POST", path, &[HOST, EVIL, JSON], "{}").await;
        check_forbidden(&answer, "may not");
        assert_eq!(answer.header("access-control-allow-origin"), "");
    }
}

#[tokio::test]
async fn a_preflight_is_answered_according_to_the_allowed_origins() {
    let app = open_to("https://grafana.example,*");
    let post = ("access-control-request-method", "POST");
    let get = ("access-control-request-method", "GET");
    for (path, origin, asked, allowed) in [
        (SETTINGS, GRAFANA, post, "https://grafana.example"),
        (SETTINGS, EVIL, post, "*"),
        ("/length", GRAFANA, post, "https://grafana.example"),
        ("/length", EVIL, post, ""),
        ("/administer", EVIL, post, ""),
        (PUSH, EVIL, post, ""),
        ("/large", EVIL, get, "*"),
        ("/large", EVIL, ("access-control-request-method", "DELETE"), ""),
    ] {
        let answer = ask(&app, "OPTIONS", path, &[HOST, origin, asked], "").await;
        assert_eq!(answer.header("access-control-allow-origin"), allowed, "{path} {origin:?}");
        assert_eq!(answer.status, if allowed.is_empty() { 403 } else { 204 }, "{path} {origin:?}");
        assert_eq!(
            answer.header("access-control-allow-headers").contains("x-scope-orgid"),
            !allowed.is_empty()
        );
    }
    assert_eq!(ask(&app, "OPTIONS", "/length", &[HOST], "").await.status, 405);
}

#[tokio::test]
async fn a_server_on_loopback_has_only_the_name_localhost() {
    let app = named("", true);
    for host in ["localhost:4040", "LOCALHOST", "app.localhost:1", "127.0.0.1:4040", "[::1]:4040", "10.0.0.7"]
    {
        assert_eq!(ask(&app, "GET", "/ready", &[("host", host)], "").await.status, 200, "{host}");
    }
    for host in
        ["evil.example:4040", "127.0.0.1.evil.example", "localhost.evil.example", "notlocalhost", "", ":1"]
    {
        let answer = ask(&app, "GET", "/ready", &[("host", host)], "").await;
        check_forbidden(&answer, "-server.allowed-hosts");
    }
    assert_eq!(ask(&app, "GET", "/ready", &[], "").await.status, 200, "a health check of HTTP/1.0");
    let two = [("host", "localhost"), ("host", "localhost")];
    check_forbidden(&ask(&app, "GET", "/ready", &two, "").await, "is not a name");
    // DNS rebinding: the same origin, under a name of the attacker.
    let rebound = [("host", "evil.example"), ("origin", "http://evil.example"), site("same-origin")];
    check_forbidden(&ask(&app, "POST", "/length", &rebound, "").await, "is not a name");
}

#[tokio::test]
async fn listed_names_are_required_and_without_a_list_every_name_is_accepted() {
    let listed = named("pyrograph.example,Profiles.Example.", false);
    for (host, status) in [
        ("pyrograph.example:4040", 200),
        ("profiles.example", 200),
        ("profiles.example.:4040", 200),
        ("127.0.0.1:4040", 200),
        ("evil.example", 403),
    ] {
        assert_eq!(ask(&listed, "GET", "/ready", &[("host", host)], "").await.status, status, "{host}");
    }
    assert_eq!(ask(&named("", false), "GET", "/ready", &[("host", "any.example")], "").await.status, 200);
}

#[test]
fn a_wrong_entry_of_a_list_is_named() {
    for wrong in ["grafana.example", "ftp://a", "https://", "https://a/path", "https://*.a", "null"] {
        let error = Origins::parse(&format!("https://ok.example,{wrong}")).unwrap_err().to_string();
        assert!(error.contains(&format!("{wrong:?}")), "{error}");
    }
    let error = Origins::parse("http://user:hush@a").unwrap_err().to_string();
    assert!(error.contains("\"a\"") && !error.contains("hush"), "{error}");
    assert_eq!(Origins::parse("HTTPS://A:443/, http://b:80"), Origins::parse("https://a,http://b"));
    for wrong in ["https://a", "a:4040", "a/b", "*"] {
        let error = Hosts::parse(wrong, false).unwrap_err().to_string();
        assert!(error.contains(&format!("{wrong:?}")), "{error}");
    }
}

#[tokio::test]
async fn no_other_extractor_reads_a_body() {
    let app = app(|_| ());
    let answer = ask(&app, "POST", "/by-another-extractor", &[], "body").await;
    assert_eq!(answer.status, 400, "{answer:?}");
}
