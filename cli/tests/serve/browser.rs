//! A headless Chromium that a test drives by the DevTools protocol, over a pair of pipes.
use serde_json::{Value, json};
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Names under which it is installed.
const NAMES: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];
/// The longest that anything on a page may take here, on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(60);

/// The program, if there is one.
pub fn find() -> Option<PathBuf> {
    let folders: Vec<PathBuf> = std::env::split_paths(&std::env::var_os("PATH")?).collect();
    NAMES.iter().flat_map(|name| folders.iter().map(move |f| f.join(name))).find(|path| path.is_file())
}

/// One page in a browser that ends with it.
pub struct Page {
    browser: Child,
    to: File,
    from: BufReader<File>,
    session: Value,
    calls: u64,
}

impl Page {
    /// Starts the browser; `folder` takes its profile and its pipes.
    pub fn open(program: &Path, folder: &Path, url: &str) -> Page {
        let (to, from) = (folder.join("to"), folder.join("from"));
        let made = Command::new("mkfifo").args([&to, &from]).status().unwrap();
        assert!(made.success(), "mkfifo made no pipes");
        // The protocol's pipes are the descriptors 3 and 4.
        let script = r#"exec "$0" --headless=new --no-sandbox --disable-gpu --no-first-run --user-data-dir="$3" \
            --remote-debugging-pipe about:blank 3<"$1" 4>"$2""#;
        let mut shell = Command::new("sh");
        shell.args(["-c", script]).args([program, &to, &from, &folder.join("profile")]);
        let browser = shell.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let to = OpenOptions::new().write(true).open(to).unwrap();
        let from = BufReader::new(File::open(from).unwrap());
        let mut page = Page { browser, to, from, session: Value::Null, calls: 0 };
        let targets = page.call("Target.getTargets", json!({}));
        let target = targets["targetInfos"].as_array().unwrap().iter().find(|t| t["type"] == "page").unwrap().clone();
        let attached = page.call("Target.attachToTarget", json!({"targetId": target["targetId"], "flatten": true}));
        page.session = attached["sessionId"].clone();
        let size = json!({"width": 1280, "height": 760, "deviceScaleFactor": 1, "mobile": false});
        page.call("Emulation.setDeviceMetricsOverride", size);
        page.call("Page.navigate", json!({"url": url}));
        page
    }

    /// A method of the protocol and its result.
    fn call(&mut self, method: &str, params: Value) -> Value {
        self.calls += 1;
        let mut message = json!({"id": self.calls, "method": method, "params": params});
        if self.session.is_string() {
            message["sessionId"] = self.session.clone();
        }
        self.to.write_all(format!("{message}\0").as_bytes()).unwrap();
        loop {
            let mut answer = vec![];
            self.from.read_until(0, &mut answer).unwrap();
            let answer: Value = serde_json::from_slice(answer.strip_suffix(b"\0").unwrap_or(&answer)).unwrap();
            if answer["id"] == self.calls {
                assert!(answer["error"].is_null(), "{method}: {}", answer["error"]);
                return answer["result"].clone();
            }
        }
    }

    /// What an expression of JavaScript gives.
    pub fn eval(&mut self, expression: &str) -> Value {
        let asked = json!({"expression": expression, "returnByValue": true, "awaitPromise": true});
        let out = self.call("Runtime.evaluate", asked);
        assert!(out["exceptionDetails"].is_null(), "{expression}: {}", out["exceptionDetails"]);
        out["result"]["value"].clone()
    }

    /// Waits until an expression is true.
    pub fn wait(&mut self, expression: &str) {
        let start = Instant::now();
        while self.eval(&format!("Boolean({expression})")) != true {
            let seen = self.eval("document.body?.innerText ?? ''");
            assert!(start.elapsed() < PATIENCE, "`{expression}` never came true; the page shows:\n{seen}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Types a text into the element that a selector finds, as keys would.
    pub fn type_into(&mut self, selector: &str, text: &str) {
        self.eval(&format!("document.querySelector({}).focus()", json!(selector)));
        self.call("Input.insertText", json!({"text": text}));
    }

    /// Clicks in the middle of the element that a selector finds.
    pub fn click(&mut self, selector: &str) {
        let find = format!("document.querySelector({})", json!(selector));
        let at = self.eval(&format!(
            "(() => {{ const e = {find}; e.scrollIntoView(); const r = e.getBoundingClientRect(); \
             return [r.x + r.width / 2, r.y + r.height / 2]; }})()"
        ));
        for kind in ["mousePressed", "mouseReleased"] {
            let event = json!({"type": kind, "x": at[0], "y": at[1], "button": "left", "clickCount": 1});
            self.call("Input.dispatchMouseEvent", event);
        }
    }

    /// A picture of what is seen, PNG in base64.
    pub fn screenshot(&mut self) -> String {
        self.call("Page.captureScreenshot", json!({}))["data"].as_str().unwrap().into()
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        // It may have ended by itself; either way it is gone afterwards.
        let _ = self.browser.kill();
        let _ = self.browser.wait();
    }
}
