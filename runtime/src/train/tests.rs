//! Runs of a toy model: exact resumption, kills, full disks, damage, skips.
use super::*;
use crate::testing::toy;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

fn config(steps: u64) -> Config {
    Config {
        seed: 5,
        steps,
        learning_rate: LearningRate { peak: 0.01, warmup_steps: 3, steps, floor: 0.1 },
        temperature: Temperature { start: 1.0, end: 0.5, steps: 10 },
        vocab: 100,
        skip_limit: 100,
    }
}

fn trainer(tokens: Vec<u16>, steps: u64) -> Trainer {
    let mut model = Model::load(toy(), 2).unwrap();
    crate::weights::init(&mut model, 1);
    Trainer::new(model, Tokens::U16(tokens), config(steps)).unwrap()
}

pub(crate) fn toy_trainer() -> Trainer {
    trainer(text(), 50)
}

fn text() -> Vec<u16> {
    (0..200u32).map(|i| (i * i % 61 + 8) as u16).collect()
}

fn bits(t: &Trainer) -> Vec<u8> {
    [t.model.params().raw(0), t.model.states().raw(0)].concat()
}

struct Quiet;
impl Watch for Quiet {
    fn step(&mut self, _: &Report, _: f64) -> bool {
        true
    }
}

/// A folder of its own, empty.
fn folder(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("lolm-train-{name}-{}", std::process::id()));
    let _ = fs::remove_dir_all(&path);
    fs::create_dir_all(&path).unwrap();
    path
}

fn checkpoints(folder: &Path, interval: u64, keep: usize) -> Checkpoints {
    Checkpoints { folder: folder.into(), interval, keep_latest_k: keep }
}

fn run(folder: &Path, interval: u64, keep: usize) -> Run {
    Run { checkpoints: Some(checkpoints(folder, interval, keep)), metrics: Some(folder.join("metrics.jsonl")) }
}

#[test]
fn a_step_feeds_its_batch_and_reports() {
    let mut t = trainer(text(), 50);
    let r = t.step().clone();
    assert_eq!((r.step, r.lr, r.tau, r.skipped, r.tokens), (1, 0.01 / 3.0, 1.0, false, 8));
    let w = t.model.params().view::<f32>(0)[0];
    assert_eq!(r.values, [("loss.total".into(), w), ("grad_norm".into(), w), ("skipped".into(), 0.0)]);
    let p = t.program;
    let (tokens, targets) = (t.ports.tokens, t.ports.targets);
    let (tokens, targets) = (t.model.input_mut::<i32>(tokens).to_vec(), t.model.input_mut::<i32>(targets).to_vec());
    assert_eq!(t.model.plan(p).program, "train_2x4");
    for row in 0..2 {
        assert_eq!(tokens[row * 4 + 1..row * 4 + 4], targets[row * 4..row * 4 + 3]);
    }
}

#[test]
fn a_hundred_skips_halve_the_rate_and_reset_the_optimizer() {
    let mut t = trainer(vec![7; 100], 1000);
    t.model.state_bytes_mut(0).fill(1);
    t.model.state_bytes_mut(1).fill(1);
    let before = t.model.params().raw(0).to_vec();
    for i in 1..=100 {
        let r = t.step();
        assert!(r.skipped && r.reset == (i == 100));
    }
    assert_eq!(t.progress(), Progress { step: 100, skipped: 100, skipped_in_a_row: 0, halvings: 1 });
    assert!(t.model.states().raw(0).iter().all(|b| *b == 0) && t.model.states().raw(1).iter().all(|b| *b == 1));
    assert_eq!(t.model.params().raw(0), before);
    let lr = t.step().lr;
    assert_eq!(lr, config(1000).learning_rate.at(100) / 2.0);
}

#[test]
fn a_resumed_run_equals_an_uninterrupted_one() {
    let mut whole = trainer(text(), 30);
    (0..30).for_each(|_| drop(whole.step().clone()));
    let folder = folder("resume");
    struct StopAt(u64);
    impl Watch for StopAt {
        fn step(&mut self, r: &Report, _: f64) -> bool {
            r.step != self.0
        }
    }
    let outcome = run(&folder, 10, 0).go(&mut trainer(text(), 30), &mut StopAt(13)).unwrap();
    assert_eq!(outcome, Outcome::Stopped);
    let mut t = trainer(text(), 30);
    assert_eq!(run(&folder, 10, 2).go(&mut t, &mut Quiet).unwrap(), Outcome::Finished);
    assert_eq!((bits(&t), t.progress()), (bits(&whole), whole.progress()));
    let mut names: Vec<_> =
        fs::read_dir(&folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert_eq!(names, ["metrics.jsonl", "step-00000020", "step-00000030"]);
    let lines = fs::read_to_string(folder.join("metrics.jsonl")).unwrap();
    assert_eq!(lines.lines().count(), 30);
    fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn resuming_takes_the_newest_whole_checkpoint() {
    let folder = folder("damage");
    let c = checkpoints(&folder, 0, 0);
    let mut t = trainer(text(), 30);
    for _ in 0..4 {
        t.step();
        c.save(&t).unwrap();
    }
    let flip = |step: u64, file: &str, at: usize| {
        let path = folder.join(format!("step-{step:08}")).join(file);
        let mut b = fs::read(&path).unwrap();
        b[at] ^= 1;
        fs::write(path, b).unwrap();
    };
    let latest = || c.latest().unwrap().0.map(|s| s.progress.step);
    assert_eq!(latest(), Some(4));
    flip(4, "state.safetensors", 90);
    assert_eq!(latest(), Some(3));
    let record = fs::read_to_string(folder.join("step-00000003/trainer.json")).unwrap();
    flip(3, "trainer.json", record.find("\"step\": 3").unwrap() + 8);
    assert_eq!(latest(), Some(2));
    fs::remove_file(folder.join("step-00000002/model.safetensors")).unwrap();
    fs::create_dir(folder.join("step-00000009")).unwrap();
    let (found, broken) = c.latest().unwrap();
    assert_eq!((found.unwrap().progress.step, broken.len()), (1, 4));
    let said: Vec<String> = broken.iter().map(|e| e.to_string()).collect();
    assert!(said[1].contains("state.safetensors does not have its hash"), "{said:?}");
    fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn another_run_is_not_resumed() {
    let folder = folder("other");
    let c = checkpoints(&folder, 0, 0);
    let t = trainer(text(), 30);
    c.save(&t).unwrap();
    let saved = c.latest().unwrap().0.unwrap();
    let error = |tokens, seed| {
        let mut t = trainer(tokens, 30);
        t.config.seed = seed;
        (t.restore(&saved, Match::Exact).map_err(|e| e.to_string()), t.restore(&saved, Match::Weights).is_ok())
    };
    assert_eq!(error(text(), 5), (Ok(()), true));
    let mut other = text();
    other[3] = 1;
    let (e, weights) = error(other, 5);
    assert!(e.unwrap_err().contains("is of another data set") && weights);
    let (e, weights) = error(text(), 6);
    assert!(e.unwrap_err().contains("of another seed: it says 5, this run has 6") && weights);
    fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn what_cannot_train_says_why() {
    let new = |tokens: Vec<u16>, vocab| {
        let model = Model::load(toy(), 1).unwrap();
        Trainer::new(model, Tokens::U16(tokens), Config { vocab, ..config(1) }).err().map(|e| e.to_string())
    };
    assert_eq!(new(vec![1; 4], 100).unwrap(), "4 tokens are too few: one window needs 5");
    assert_eq!(new(vec![1; 5], 1).unwrap(), "token 0 is 1, but the vocabulary has 1 entries");
    assert_eq!(new(vec![1; 5], 2), None);
    let model = crate::testing::model(&crate::testing::linear(2, 2, 2), 1);
    let e = Trainer::new(model, Tokens::U16(text()), config(1)).err().unwrap().to_string();
    assert_eq!(e, "the artifact has no program to train with; it has linear");
}

// ---- in other processes: this test binary is started again with one of the tests below and a folder to work in.

const FOLDER: &str = "LOLM_TEST_TRAIN_FOLDER";

fn again(test: &str, folder: &Path, shell: &str) -> Command {
    let mut c = Command::new("sh");
    c.args(["-c", &format!("{shell} exec \"$0\" --exact {test} --nocapture --test-threads 1")]);
    c.arg(std::env::current_exe().unwrap()).env(FOLDER, folder).stdout(Stdio::null()).stderr(Stdio::null());
    c
}

/// Not a test by itself: a run of 120 steps with a checkpoint after each, in the folder that it is given.
#[test]
fn child_trains() {
    let Some(folder) = std::env::var_os(FOLDER).map(PathBuf::from) else { return };
    let mut t = trainer(text(), 120);
    run(&folder, 1, 3).go(&mut t, &mut Quiet).unwrap();
    fs::write(folder.join("result"), bits(&t)).unwrap();
}

#[test]
fn kills_at_any_moment_lose_nothing() {
    let folder = folder("kill");
    let mut whole = trainer(text(), 120);
    (0..120).for_each(|_| drop(whole.step().clone()));
    let mut kills = 0;
    while !folder.join("result").exists() {
        let mut child = again("train::tests::child_trains", &folder, "").spawn().unwrap();
        // Ever later, so that there are kills at the start and in the middle, and an end.
        std::thread::sleep(std::time::Duration::from_millis(4 * kills + 3));
        child.kill().unwrap();
        child.wait().unwrap();
        kills += 1;
        assert!(kills < 500, "no progress");
    }
    assert!(kills > 2, "killed only {kills} times");
    assert_eq!(fs::read(folder.join("result")).unwrap(), bits(&whole));
    fs::remove_dir_all(&folder).unwrap();
}

/// Not a test by itself: one save, which must fail because files may not grow.
#[test]
fn child_saves_to_a_full_disk() {
    let Some(folder) = std::env::var_os(FOLDER).map(PathBuf::from) else { return };
    let mut t = trainer(text(), 120);
    t.step();
    let e = checkpoints(&folder, 0, 1).save(&t).unwrap_err();
    assert!(matches!(e, CheckpointError::Write { .. }), "{e}");
}

#[test]
fn a_full_disk_leaves_earlier_checkpoints() {
    let folder = folder("full");
    let c = checkpoints(&folder, 0, 1);
    let t = trainer(text(), 120);
    c.save(&t).unwrap();
    // Files of no more than 0 blocks; the signal that comes with it is ignored, so that writing fails as on a full disk.
    let shell = "trap '' XFSZ; ulimit -f 0;";
    let status = again("train::tests::child_saves_to_a_full_disk", &folder, shell).status().unwrap();
    assert!(status.success());
    let names: Vec<_> = fs::read_dir(&folder).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names, ["step-00000000"]);
    assert_eq!(c.latest().unwrap().0.unwrap().progress.step, 0);
    fs::remove_dir_all(&folder).unwrap();
}
