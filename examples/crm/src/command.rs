//! The commands: their list, and a typed line cut into words.

/// Each command, as it is typed, and what it does.
const COMMANDS: &[(&str, &str)] = &[
    ("list [STAGE]", "lists leads, and goes on to show what changes in the list"),
    ("totals", "shows the totals of each stage, and again whenever they change"),
    ("quiet", "ends the showing of changes"),
    ("search WORDS", "finds leads by name or phone, with mistakes in them"),
    ("show NAME", "shows a lead, and why it is not at the server"),
    ("add NAME STAGE AMOUNT [PHONE]", "makes a lead"),
    ("set NAME FIELD VALUE", "changes the name, stage, amount or phone of a lead"),
    ("delete NAME", "deletes a lead"),
    ("undo", "takes back your last change"),
    ("offline", "stops syncing, as without a network"),
    ("online", "starts syncing again"),
    ("sync", "sends and fetches now, and says how it went"),
    ("status", "says what is not at the server"),
    ("failed", "lists changes that no sync moves, with numbers"),
    ("retry N", "sends failed change N again"),
    ("correct N FIELD VALUE", "corrects failed change N, and sends it"),
    ("discard N", "discards failed change N: it is never sent"),
    ("take N", "sends change N of another user with your credentials"),
    ("conflicts", "lists conflicts, with numbers"),
    ("mine N", "keeps your side of conflict N"),
    ("theirs N", "keeps the other side of conflict N"),
    ("user NAME", "another user takes this device"),
    ("leave [FILE]", "removes the book from this device, and keeps what is unsent in FILE"),
    ("help", "lists the commands"),
    ("quit", "ends the program, and keeps everything"),
];

/// Returns all commands as a table.
pub(crate) fn help() -> String {
    let lines = COMMANDS.iter().map(|(usage, does)| format!("{usage:<30} {does}"));
    let mut lines: Vec<_> = lines.collect();
    lines.push("a name is whole or its beginning; put \"quotes\" around spaces".to_owned());
    lines.join("\n")
}

/// Returns what is wrong with a line that begins with this word.
pub(crate) fn misfit(word: &str) -> String {
    let name = |usage: &str| usage.split(' ').next() == Some(word);
    match COMMANDS.iter().find(|(usage, _)| name(usage)) {
        Some((usage, does)) => format!("type `{usage}`: it {does}"),
        None => format!("there is no command `{word}`: `help` lists them"),
    }
}

/// Cuts a line into words. Quotes keep spaces in a word; what follows `#` is a remark.
pub(crate) fn split(line: &str) -> Result<Vec<String>, String> {
    let (mut words, mut word, mut is_quoted) = (Vec::new(), None::<String>, false);
    for letter in line.chars() {
        match letter {
            '"' => {
                is_quoted = !is_quoted;
                word.get_or_insert_default();
            }
            '#' if !is_quoted && word.is_none() => break,
            letter if letter.is_whitespace() && !is_quoted => words.extend(word.take()),
            letter => word.get_or_insert_default().push(letter),
        }
    }
    if is_quoted {
        return Err("a quote is open: end it with \"".to_owned());
    }
    words.extend(word);
    Ok(words)
}
