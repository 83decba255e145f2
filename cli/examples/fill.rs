fn main() {
    use fieldbook::*;
    let book = Book::create_new("/tmp/cli-try/big.book", BookOptions::new("local").unwrap()).unwrap();
    for part in 0..20u64 {
        let all = (0..10_000u64).map(|n| { let n = part * 10_000 + n;
            Mutation::create(format!("lead/{n:07}").parse().unwrap(), Fields::parse(&format!(r#"{{"name":"Ann {n}","stage":"new","n":{n}}}"#)).unwrap()) }).collect();
        book.import(all).unwrap();
    }
    book.close().unwrap();
}
