//! Requests to the broker's HTTP API, one after the other.

use super::CtlArgs;
use crate::limits::CTL_ANSWER_MS_MAX;
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::time::Duration;
use ureq::http::Request;
use ureq::{Agent, Error};

/// A broker's API, and who asks.
pub(super) struct Client {
    agent: Agent,
    /// For what is read for as long as it is written.
    streams: Agent,
    url: String,
    authorization: String,
}

impl Client {
    pub fn new(args: &CtlArgs) -> Client {
        let given = |option: &Option<String>, name: &str, default: &str| {
            option.clone().or_else(|| std::env::var(name).ok()).unwrap_or_else(|| default.to_owned())
        };
        let url = given(&args.url, "RINGMQCTL_URL", "http://127.0.0.1:8081");
        let url = if url.contains("://") { url } else { format!("http://{url}") };
        let token = given(&args.token, "RINGMQCTL_TOKEN", "");
        let authorization = if token.is_empty() {
            let user = given(&args.user, "RINGMQCTL_USER", "admin");
            let password = given(&args.password, "RINGMQCTL_PASSWORD", "public");
            format!("Basic {}", base64(format!("{user}:{password}").as_bytes()))
        } else {
            format!("Bearer {token}")
        };
        let agent = |for_ms: Option<u64>| {
            let config = Agent::config_builder()
                .timeout_global(for_ms.map(Duration::from_millis))
                .timeout_recv_response(Some(Duration::from_millis(CTL_ANSWER_MS_MAX)))
                .http_status_as_error(false)
                .max_redirects(0)
                .proxy(None);
            config.build().new_agent()
        };
        let (agent, streams) = (agent(Some(CTL_ANSWER_MS_MAX)), agent(None));
        Client { agent, streams, url: url.trim_end_matches('/').to_owned(), authorization }
    }

    pub fn get(&self, path: &str) -> Result<Value, String> {
        self.send("GET", path, None)
    }

    /// The answer, if it is one of success.
    pub fn send(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Value, String> {
        let url = format!("{}{path}", self.url);
        let text = body.map(Value::to_string).unwrap_or_default();
        let request =
            Request::builder().method(method).uri(&url).header("authorization", &self.authorization);
        let sent = if body.is_some() {
            let request = request.header("content-type", "application/json").body(text);
            self.agent.run(request.map_err(|error| format!("{url}: {error}"))?)
        } else {
            self.agent.run(request.body(()).map_err(|error| format!("{url}: {error}"))?)
        };
        let mut response = sent.map_err(|error| self.unreachable(&error))?;
        let status = response.status().as_u16();
        let text = response.body_mut().read_to_string().map_err(|error| self.unreachable(&error))?;
        let answer: Value = serde_json::from_str(&text).unwrap_or(Value::Null);
        match status {
            200 => Ok(answer),
            _ => Err(refused(status, &answer)),
        }
    }

    /// Follows server-sent events: what each says, as JSON, until `each` says that it is enough or the broker ends it.
    pub fn follow(&self, path: &str, mut each: impl FnMut(Value) -> bool) -> Result<(), String> {
        let url = format!("{}{path}", self.url);
        let request = Request::builder().uri(&url).header("authorization", &self.authorization).body(());
        let request = request.map_err(|error| format!("{url}: {error}"))?;
        let response = self.streams.run(request).map_err(|error| self.unreachable(&error))?;
        let status = response.status().as_u16();
        let mut lines = BufReader::new(response.into_body().into_reader()).lines();
        if status != 200 {
            let text: String = lines.map_while(Result::ok).collect();
            return Err(refused(status, &serde_json::from_str(&text).unwrap_or(Value::Null)));
        }
        // A connection that ends in the middle was cut off; there is nothing more to say than that it ended.
        while let Some(Ok(line)) = lines.next() {
            let data = line.strip_prefix("data: ").and_then(|data| serde_json::from_str(data).ok());
            if data.is_some_and(|data| !each(data)) {
                return Ok(());
            }
        }
        Ok(())
    }

    fn unreachable(&self, error: &Error) -> String {
        format!("no broker answers at {}: {error}; is it running, and is --url its http.listen?", self.url)
    }
}

/// Why a request failed, in one line.
fn refused(status: u16, answer: &Value) -> String {
    if status == 401 {
        return "the broker refused the credentials; give --user and --password, or --token".to_owned();
    }
    let said = answer["message"].as_str().or_else(|| answer["error"]["message"].as_str());
    format!("the broker answered {status}: {}", said.unwrap_or("nothing more"))
}

/// As RFC 4648 has it, with padding.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let word = chunk.iter().chain(&[0, 0]).take(3).fold(0u32, |word, byte| word << 8 | u32::from(*byte));
        for digit in 0..4 {
            let index = (word >> (18 - 6 * digit)) as usize & 63;
            text.push(if digit <= chunk.len() { char::from(DIGITS[index]) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::base64;

    #[test]
    fn credentials_are_written_as_the_standard_has_it() {
        for (bytes, text) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("admin:public", "YWRtaW46cHVibGlj")]
        {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
    }
}
