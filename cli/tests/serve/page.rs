//! The page, in a real browser: a prompt is typed, and the colours of its answer are read.
use crate::browser::{self, Page};
use crate::server::Server;
use serde_json::{Value, json};
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// A folder for a browser, which goes away with the test.
struct Folder(PathBuf);

impl Folder {
    fn new(test: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("lolm-page-{test}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Folder(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What a browser leaves behind in the temporary files harms nobody.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Runs a test on the page of a server, or says that there is no browser to run it in.
fn on_the_page(test: &str, body: fn(&mut Page, &Server)) {
    let Some(program) = browser::find() else {
        eprintln!("skipped: 1 test of the page: there is no Chromium (Debian's package `chromium`)");
        return;
    };
    let (server, folder) = (Server::new(), Folder::new(test));
    let mut page = Page::open(&program, &folder.0, &format!("http://{}/", server.address));
    page.wait("document.querySelector('#model')?.textContent.startsWith('tiny')");
    body(&mut page, &server);
}

/// Puts a number into a field.
fn set(page: &mut Page, id: &str, value: &str) {
    page.eval(&format!("document.getElementById('{id}').value = '{value}'"));
}

/// Sends what was typed, and waits until these lanes are done.
fn send(page: &mut Page, lanes: &[&str]) {
    page.click("#send");
    page.wait("document.querySelector('#stop').disabled");
    for lane in lanes {
        page.wait(&format!("document.querySelector('#lane-{lane}').dataset.done"));
    }
}

fn choose_gate(page: &mut Page, lane: &str, value: &str) {
    page.click(&format!("#lane-{lane} input[type=radio][value='{value}']"));
}

/// Text, gate and background of each token of a lane.
fn tokens(page: &mut Page, lane: &str) -> Vec<(String, f64, String)> {
    let found = page.eval(&format!(
        "[...document.querySelectorAll('#lane-{lane} .tok')].map(t => [t.textContent, Number(t.dataset.gate), \
         getComputedStyle(t).backgroundColor])"
    ));
    let text = |v: &Value| v.as_str().unwrap().to_string();
    found.as_array().unwrap().iter().map(|t| (text(&t[0]), t[1].as_f64().unwrap(), text(&t[2]))).collect()
}

/// Red, green, blue and how strong they are.
fn color(css: &str) -> [f64; 4] {
    let inside = css.trim_start_matches(|c: char| c != '(').trim_matches(['(', ')']);
    let mut parts = inside.split(',').map(|p| p.trim().parse().unwrap());
    std::array::from_fn(|_| parts.next().unwrap_or(1.0))
}

/// The colour of a gate: blue below a half, amber above, the stronger the farther.
fn close_to_gate(css: &str, gate: f64) -> bool {
    let [r, g, b, strength] = color(css);
    let hue = if gate < 0.5 { [75.0, 79.0, 214.0] } else { [217.0, 138.0, 31.0] };
    // Where nothing is seen, the hue is anyone's guess.
    let same = [r, g, b] == hue || strength < 0.01;
    same && (strength - (gate - 0.5).abs() * 1.3).abs() < 0.01
}

#[test]
fn tokens_are_coloured_by_their_gate() {
    on_the_page("colours", |page, server| {
        page.type_into("#prompt", "It was");
        set(page, "tokens", "24");
        send(page, &["a"]);
        let learned = tokens(page, "a");
        assert_eq!(learned.len(), 24);
        assert!(learned.iter().all(|(_, gate, css)| close_to_gate(css, *gate)), "{learned:?}");
        let cells = page.eval("[...document.querySelectorAll('#lane-a .ribbon i')].map(c => Number(c.dataset.regime))");
        let codes = cells.as_array().unwrap();
        assert!(codes.len() == 24 && codes.iter().all(|c| c.as_u64().unwrap() < 4), "{codes:?}");

        // The page shows what the route answers.
        let asked =
            json!({"prompt": "It was", "max_tokens": 24, "temperature": 0.8, "seed": 0, "lolm": {"trace": true}});
        let answer = server.complete(asked).ok();
        let text: String = learned.iter().map(|t| t.0.as_str()).collect();
        assert_eq!(answer["choices"][0]["text"], text);
        let gate = &answer["choices"][0]["lolm"]["tokens"][5]["gate"]["mean"];
        assert_eq!(gate.as_f64().unwrap(), learned[5].1);

        for (value, css) in [("0", "rgba(75, 79, 214, 0.65)"), ("1", "rgba(217, 138, 31, 0.65)")] {
            choose_gate(page, "a", value);
            send(page, &["a"]);
            let forced = tokens(page, "a");
            let all = forced.iter().all(|t| t.1 == value.parse::<f64>().unwrap() && t.2 == css);
            assert!(forced.len() == 24 && all, "{forced:?}");
        }
    });
}

#[test]
fn two_gates_are_compared_and_an_answer_is_stopped() {
    on_the_page("compare", |page, _| {
        page.type_into("#prompt", "Neque porro quisquam est");
        set(page, "tokens", "40");
        page.click("#compare");
        choose_gate(page, "b", "1");
        send(page, &["a", "b"]);
        let (a, b) = (tokens(page, "a"), tokens(page, "b"));
        assert!(a.len() == 40 && b.len() == 40 && b.iter().all(|t| t.1 == 1.0) && a.iter().any(|t| t.1 != 1.0));
        page.eval("document.querySelector('#lane-a .tok').dispatchEvent(new Event('pointerenter'))");
        page.wait("/gate [^]*regime [^]*memory/.test(document.querySelector('#detail').innerText)");
        page.wait("Number(document.querySelector('#f-running').textContent) >= 0");
        if let Some(path) = std::env::var_os("LOLM_SCREENSHOT") {
            let mut decode = Command::new("base64")
                .arg("-d")
                .stdin(Stdio::piped())
                .stdout(std::fs::File::create(path).unwrap())
                .spawn()
                .unwrap();
            decode.stdin.take().unwrap().write_all(page.screenshot().as_bytes()).unwrap();
            assert!(decode.wait().unwrap().success());
        }

        // A model this small is done before a hand could stop it, so the first token that is seen does.
        set(page, "tokens", "400");
        page.eval(
            "new MutationObserver(() => document.querySelector('#lane-a .tok') && document.querySelector('#stop').click()) \
             .observe(document.querySelector('#lane-a .text'), {childList: true})",
        );
        page.click("#send");
        page.wait("document.querySelector('#lane-a').dataset.done === 'stopped'");
        assert!(tokens(page, "a").len() < 400);
    });
}

#[test]
fn what_goes_wrong_is_shown() {
    on_the_page("wrong", |page, _| {
        page.type_into("#prompt", "x");
        set(page, "tokens", "100000");
        page.click("#send");
        page.wait("document.querySelector('#lane-a').dataset.done === 'error'");
        let said = page.eval("document.querySelector('#lane-a .error').textContent");
        assert!(said.as_str().unwrap().contains("512"), "{said}");
    });
}
