//! A server within the test, on a port of its own.
use lolm::chat::ChatTemplate;
use lolm::compiler::{To, in_memory};
use lolm::device::Opened;
use lolm::programs::{ProgramArgs, SERVING};
use lolm::serve::{App, Ended, Keys, Limits, Loaded, Log, now, run};
use lolm::spec::{Overrides, find};
use lolm::tokenizer::Tokenizer;
use lolm_models::spec::Override;
use lolm_runtime::serve::{Engine, Options, Stats};
use lolm_runtime::weights;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// Tokens of the model's context.
pub const CONTEXT: usize = 512;

/// What of a server a test wants different.
#[derive(Clone)]
pub struct How {
    pub slots: usize,
    pub queued: usize,
    pub limits: Limits,
    pub keys: Vec<String>,
    pub request_timeout: Option<Duration>,
    pub shutdown_timeout: Duration,
    pub cache_bytes: usize,
    pub template: Option<&'static str>,
    /// How long loading takes.
    pub loading: Duration,
}

impl Default for How {
    fn default() -> Self {
        How {
            slots: 4,
            queued: 256,
            limits: Limits::default(),
            keys: vec![],
            request_timeout: None,
            shutdown_timeout: Duration::from_secs(30),
            cache_bytes: 1 << 20,
            template: None,
            loading: Duration::ZERO,
        }
    }
}

pub struct Server {
    pub address: SocketAddr,
    asked: watch::Sender<u32>,
    thread: Option<JoinHandle<Ended>>,
    engine: Arc<OnceLock<Engine>>,
}

impl Server {
    pub fn new() -> Server {
        Server::start(How::default())
    }

    /// Starts, and waits until it answers, unless loading takes long.
    pub fn start(how: How) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (asked, stop) = watch::channel(0);
        let engine = Arc::new(OnceLock::new());
        let tell = engine.clone();
        let app = Arc::new(App::new(Keys::new(how.keys.clone()).unwrap(), how.limits.clone(), Log::Nothing));
        let (shutdown, wait) = (how.shutdown_timeout, how.loading.is_zero());
        let load = move || {
            std::thread::sleep(how.loading);
            let loaded = model(&how);
            tell.get_or_init(|| loaded.engine.clone());
            Ok(loaded)
        };
        let thread = std::thread::spawn(move || run(listener, app, load, || Ok(stop), shutdown).unwrap());
        let server = Server { address, asked, thread: Some(thread), engine };
        if wait {
            server.wait_ready();
        }
        server
    }

    pub fn wait_ready(&self) {
        self.until("ready", || self.get("/ready").status == 200);
    }

    /// Waits until something is so.
    pub fn until(&self, what: &str, so: impl Fn() -> bool) {
        let began = Instant::now();
        while !so() {
            assert!(began.elapsed() < Duration::from_secs(60), "not {what} within a minute: {:?}", self.stats());
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    pub fn engine(&self) -> &Engine {
        self.engine.get().expect("the model is there")
    }
    pub fn stats(&self) -> Stats {
        self.engine().stats()
    }

    /// Asks for an end: once to drain, twice to stop.
    pub fn ask_to_stop(&self) {
        self.asked.send_modify(|n| *n += 1);
    }

    /// How it ended, after it was asked to.
    pub fn ended(&mut self) -> Ended {
        self.thread.take().unwrap().join().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.ask_to_stop();
        self.ask_to_stop();
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(ended.is_ok() || std::thread::panicking());
        }
    }
}

/// A model of two layers over bytes, with a gate, regimes and a memory.
fn model(how: &How) -> Loaded {
    let keys = format!(
        "d_model=16 n_heads=2 n_layers=2 d_ff=32 max_seq_len={CONTEXT} training.seq=16 memory.slot_dim=8 \
         memory.n_slots=4 regime.n_codes=4 regime.d_regime=4 ssm.d_state=4 loss.cpc_proj_dim=4"
    );
    let set = keys.split(' ').map(|k| k.split_once('=').unwrap()).map(|(k, v)| Override::new(k, v)).collect();
    let named = find("lolm-demo", &Overrides { set }).unwrap();
    let args = ProgramArgs { slots: Some(how.slots), ..ProgramArgs::default() };
    let sources = args.sources(&named.spec, &SERVING).unwrap();
    let artifact = in_memory(&named, &sources, To::default()).unwrap();
    let mut model = Opened::cpu(1).load_rows(artifact, how.slots).unwrap();
    weights::init(&mut model, 7);
    let options = Options { max_queued: how.queued, state_cache_bytes: how.cache_bytes, ..Options::new(CONTEXT) };
    let engine = Engine::start(model, options).unwrap();
    let tokenizer = Tokenizer::of(&named.spec, None).unwrap();
    let chat = how.template.map(|t| ChatTemplate::parse(t, &tokenizer.special));
    Loaded {
        engine,
        tokenizer,
        chat,
        names: vec!["tiny".into(), "other".into()],
        max_model_len: CONTEXT,
        request_timeout: how.request_timeout,
        created: now(),
    }
}
