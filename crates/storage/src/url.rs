//! Hides users, passwords and signatures of URLs in messages.

const HIDDEN: &str = "********";

/// `text` with the user part, the query and the fragment of each URL in it replaced by stars.
///
/// A URL begins with `://` and ends before white space, a quote or an angle bracket. In free text the end is a guess,
/// and too much is hidden rather than too little.
pub fn hide_url_secrets(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find("://") {
        let (before, after) = rest.split_at(start + 3);
        shown.push_str(before);
        let is_end = |c: char| c.is_whitespace() || "\"'`<>".contains(c);
        let end = after.find(is_end).unwrap_or(after.len());
        let end = after.find("://").map_or(end, |next| next.min(end));
        let (address, tail) = after.split_at(end);
        shown.push_str(&hide_address_secrets(address));
        rest = tail;
    }
    shown.push_str(rest);
    shown
}

/// The same for an address without a scheme: `user:password@host:port/path?query`.
pub fn hide_address_secrets(address: &str) -> String {
    let (user, rest) = address.rsplit_once('@').map_or(("", address), |(_, rest)| (HIDDEN, rest));
    let separator = if user.is_empty() { "" } else { "@" };
    match rest.find(['?', '#']) {
        Some(end) => format!("{user}{separator}{}{HIDDEN}", rest.get(..=end).unwrap_or_default()),
        None => format!("{user}{separator}{rest}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_and_queries_of_urls_are_hidden() {
        let check = |text: &str, shown: &str| assert_eq!(hide_url_secrets(text), shown);
        check("http://proxy:3128", "http://proxy:3128");
        check("http://u:hush@proxy:3128/a", "http://********@proxy:3128/a");
        check("http://hush@proxy", "http://********@proxy");
        check("https://a.blob/c?sv=1&sig=hush", "https://a.blob/c?********");
        check("https://a/c#hush", "https://a/c#********");
        check("http://u:hu/s?h@x#y@host/", "http://********@host/");
        check("http://u:hush,hush@a,http://v:hush@b:1", "http://********@a,http://********@b:1");
        check(
            "cannot ask \"https://u:hush@h/p?sig=hush\": no answer from <http://u:hush@h>",
            "cannot ask \"https://********@h/p?********\": no answer from <http://********@h>",
        );
        check("retry? write to a@b: it is no URL", "retry? write to a@b: it is no URL");
        check("", "");
    }

    #[test]
    fn an_address_needs_no_scheme() {
        assert_eq!(hide_address_secrets("u:hush@minio:9000"), "********@minio:9000");
        assert_eq!(hide_address_secrets("minio:9000/?sig=hush"), "minio:9000/?********");
        assert_eq!(hide_address_secrets("minio:9000"), "minio:9000");
    }
}
