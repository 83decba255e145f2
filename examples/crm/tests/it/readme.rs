//! The sessions that README.md shows.

use crate::support::Office;

const README: &str = include_str!("../../README.md");

#[test]
fn the_sessions_of_the_readme_print_what_it_shows() {
    let office = Office::open();
    let sessions: Vec<_> = README
        .split("```text\n$ crm ")
        .skip(1)
        .map(|text| text.split("```").next().unwrap())
        .collect();
    assert!(sessions.len() > 2);
    for session in sessions {
        let (arguments, shown) = session.split_once('\n').unwrap();
        let (book, user) = arguments.split_once(' ').unwrap();
        let typed = shown.lines().filter(|line| line.starts_with(user));
        let typed = typed.filter_map(|line| line.split_once("> ")).map(|(_, command)| command);
        let said = office.device(book, user).script(typed);
        assert_eq!(steady(&said, user), steady(shown, user), "{said}");
    }
}

/// Leaves out what differs from run to run: how fast the background sync was, and times.
fn steady(said: &str, user: &str) -> Vec<String> {
    let is_news = |line: &&str| ["+ ", "- ", "~ "].iter().any(|sign| line.starts_with(sign));
    let line = |line: &str| match line.split_once("> ") {
        Some((_, command)) if line.starts_with(user) => format!("{user}> {command}"),
        _ => line.split(' ').filter(|word| !is_time(word)).collect(),
    };
    said.lines().filter(|line| !is_news(line)).map(line).collect()
}

fn is_time(word: &str) -> bool {
    word.starts_with("20") && word.contains('T') && word.contains('Z')
}
