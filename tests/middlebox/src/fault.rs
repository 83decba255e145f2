//! The faults that the box makes, and how often. Each seed draws some kinds and leaves others out,
//! so that rare combinations happen.

use fieldbook_sim::dice::Dice;

/// A fault of one request or of its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Something else answers, with this status and a page of this form. The request does not reach
    /// the server.
    Page(u16, Form),
    /// The request is read, and the connection is closed. The request does not reach the server.
    RequestDropped,
    /// The connection is reset before the request is read to its end.
    Reset,
    /// The server answers, and no part of the answer arrives.
    AnswerDropped,
    /// The server answers, and the connection is closed within the head.
    HeadCut,
    /// The server answers, and the connection is closed within the body.
    BodyCut,
    /// The server answers, half of the answer arrives, and then nothing more.
    Stalled,
    /// The answer arrives whole, slowly and in small pieces.
    Trickled,
    /// The answer arrives whole, and the connection is closed although it was to be kept.
    KeepAliveClosed,
    /// A header of the request is changed.
    RequestHeader(Header),
    /// A header of the answer is changed.
    AnswerHeader(Header),
    /// The request is sent to the server twice, and the second answer arrives.
    SentTwice,
    /// An earlier answer is sent again.
    Cached,
    /// Another server answers.
    OtherServer,
    /// The token is replaced by a token of another tenant.
    OtherTenant,
}

/// The form of a page that is not from our server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// A page for people.
    Html,
    /// JSON that is not of our protocol.
    Json,
    /// JSON like a refusal of our server, without the marker.
    Unmarked,
    /// Text, with no media type.
    Bare,
    /// No body and no media type.
    Empty,
}

/// The change of a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Header {
    /// The media type is removed.
    NoMediaType,
    /// The media type is replaced by `text/plain`.
    Text,
    /// The header declares a compressed body, although the body is not compressed.
    Packed,
    /// The header declares more bytes than the body has.
    Longer,
    /// Headers of the box's own are added.
    Added,
}

/// The statuses of answers that are not from our server. `200` and `204` look like success.
pub const STATUSES: [u16; 26] = [
    200, 202, 204, 301, 302, 307, 400, 401, 402, 403, 404, 405, 406, 407, 408, 409, 413, 415, 421,
    426, 429, 451, 500, 502, 503, 511,
];
/// The forms of a page.
const FORMS: [Form; 5] = [Form::Html, Form::Json, Form::Unmarked, Form::Bare, Form::Empty];
const HEADERS: [Header; 5] =
    [Header::NoMediaType, Header::Text, Header::Packed, Header::Longer, Header::Added];
const KINDS: usize = 15;

impl Fault {
    /// Returns the kind's name in the counts.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Page(..) => "foreign page",
            Self::RequestDropped => "request dropped",
            Self::Reset => "connection reset",
            Self::AnswerDropped => "answer dropped",
            Self::HeadCut => "answer's head cut",
            Self::BodyCut => "answer's body cut",
            Self::Stalled => "answer stalled",
            Self::Trickled => "answer trickled",
            Self::KeepAliveClosed => "keep-alive closed",
            Self::RequestHeader(_) => "request header rewritten",
            Self::AnswerHeader(_) => "answer header rewritten",
            Self::SentTwice => "request sent twice",
            Self::Cached => "answer from a cache",
            Self::OtherServer => "another server",
            Self::OtherTenant => "another tenant",
        }
    }

    /// Returns whether the fault leads a request to another server or tenant.
    pub const fn misleads(&self) -> bool {
        matches!(self, Self::OtherServer | Self::OtherTenant)
    }
}

/// The present faults of the box.
#[derive(Debug)]
pub struct Weather {
    dice: Dice,
    weights: [u64; KINDS],
    per_mille: u64,
    /// Whether there are faults other than refusals by content.
    storms: bool,
    /// The fault of the next requests, and their number.
    lasting: Option<(Fault, u64)>,
    /// Whether requests may be led to another server or tenant.
    misleads: bool,
    /// The words for which bodies are refused, and the fault.
    poison: Option<(String, Fault)>,
    /// The words for which answers are refused, and the fault.
    scan: Option<(String, Fault)>,
}

impl Weather {
    /// Draws the kinds of faults, and lets everything through at first. `waits` allows faults in
    /// which the client waits in vain, which costs real time.
    pub fn new(seed: u64, waits: bool) -> Self {
        let mut dice = Dice::new(seed);
        let mut weights: [u64; KINDS] =
            std::array::from_fn(|_| if dice.chance(600) { dice.between(1, 20) } else { 0 });
        if !waits {
            weights[6] = 0;
        }
        let per_mille = dice.between(150, 850);
        Self {
            dice,
            weights,
            per_mille,
            storms: false,
            lasting: None,
            misleads: true,
            poison: None,
            scan: None,
        }
    }

    /// Sets whether requests may be led to another server or tenant. A book that never reached the
    /// right server cannot distinguish it from another one.
    pub const fn set_misleads(&mut self, misleads: bool) {
        self.misleads = misleads;
    }

    /// Refuses bodies that hold these words from now on, always in the same way.
    pub fn poison(&mut self, words: &str) {
        self.poison = Some((words.to_owned(), self.refusal()));
    }

    /// Refuses answers that hold these words from now on, always in the same way.
    pub fn scan(&mut self, words: &str) {
        self.scan = Some((words.to_owned(), self.refusal()));
    }

    fn refusal(&mut self) -> Fault {
        match self.dice.below(7) {
            0 => Fault::Reset,
            1 => Fault::RequestDropped,
            2 => Fault::Page(403, Form::Html),
            3 => Fault::Page(502, Form::Html),
            _ => self.page(),
        }
    }

    /// Returns the fault of an answer whose body holds refused words.
    pub fn refusal_of_answer(&self, body: &[u8]) -> Option<Fault> {
        self.scan.as_ref().filter(|(words, _)| holds(body, words)).map(|(_, how)| *how)
    }

    /// Starts the drawn faults.
    pub const fn storm(&mut self) {
        self.storms = true;
    }

    /// Ends all faults except refusals by content.
    pub const fn calm(&mut self) {
        (self.storms, self.lasting) = (false, None);
    }

    /// Lets everything through.
    pub fn clear(&mut self) {
        self.calm();
        (self.poison, self.scan) = (None, None);
    }

    /// Returns the fault of bodies that are refused by content, if there are any.
    pub fn refuses(&self) -> Option<&Fault> {
        self.poison.as_ref().map(|(_, how)| how)
    }

    /// Draws the fault of a request with this body, and returns whether the content is the reason.
    pub fn next(&mut self, body: &[u8]) -> Option<(Fault, bool)> {
        if let Some((words, how)) = &self.poison
            && holds(body, words)
        {
            return Some((*how, true));
        }
        if !self.storms {
            return None;
        }
        if let Some((fault, left)) = &mut self.lasting {
            let fault = *fault;
            *left -= 1;
            if *left == 0 {
                self.lasting = None;
            }
            return Some((fault, false));
        }
        if !self.dice.chance(self.per_mille) {
            return None;
        }
        let fault = self.fault()?;
        if fault.misleads() && !self.misleads {
            return None;
        }
        if self.dice.chance(250) {
            self.lasting = Some((fault, self.dice.between(1, 8)));
        }
        Some((fault, false))
    }

    fn fault(&mut self) -> Option<Fault> {
        Some(match self.dice.weighted(&self.weights)? {
            0 => self.page(),
            1 => Fault::RequestDropped,
            2 => Fault::Reset,
            3 => Fault::AnswerDropped,
            4 => Fault::HeadCut,
            5 => Fault::BodyCut,
            6 => Fault::Stalled,
            7 => Fault::Trickled,
            8 => Fault::KeepAliveClosed,
            9 => Fault::RequestHeader(self.header()),
            10 => Fault::AnswerHeader(self.header()),
            11 => Fault::SentTwice,
            12 => Fault::Cached,
            13 => Fault::OtherServer,
            _ => Fault::OtherTenant,
        })
    }

    fn page(&mut self) -> Fault {
        let status = self.dice.pick(&STATUSES).copied().unwrap_or(502);
        Fault::Page(status, self.dice.pick(&FORMS).copied().unwrap_or(Form::Html))
    }

    fn header(&mut self) -> Header {
        self.dice.pick(&HEADERS).copied().unwrap_or(Header::Added)
    }
}

fn holds(body: &[u8], words: &str) -> bool {
    body.windows(words.len()).any(|window| window == words.as_bytes())
}
