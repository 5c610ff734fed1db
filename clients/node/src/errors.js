/** What can go wrong. Every error of this package is a VatnError. */

export class VatnError extends Error {
  constructor(message, options) {
    super(message, options);
    this.name = new.target.name;
  }
}

/** No answer in time. Whether a write was done is not known. */
export class Timeout extends VatnError {}

/** Something answered that does not speak version 1 of the protocol. */
export class ProtocolError extends VatnError {}

/** A value that another client wrote and JavaScript has none for; `raw` has its bytes. */
export class Unreadable extends VatnError {
  constructor(raw, cause) {
    super(`a value that cannot be read here: ${cause.message}`, { cause });
    this.raw = raw;
  }
}

/** A value that MessagePack has none for, or that would come back as another one; nothing was sent. */
export class Unwritable extends VatnError {
  constructor(what, options) {
    super(`a value that cannot be stored: ${what}`, options);
  }
}

/** Changes with a seq above `after`, up to `upTo`, may not have reached this subscriber. */
export class Missed extends VatnError {
  constructor(after, upTo, options) {
    super(`changes after seq ${after} and up to ${upTo} may be missing`, options);
    this.after = after;
    this.upTo = upTo;
  }
}

/** The broker refused a command: `code` is one of CODES (or of a later version's), `details` belong to it. */
export class CommandError extends VatnError {
  constructor([code, message, details]) {
    super(`${code}: ${message}`);
    this.code = code;
    this.details = details;
  }
}

/** The error codes of the protocol. */
export const CODES = Object.freeze([
  "BAD_REQUEST", "UNKNOWN_METHOD", "BAD_ARGUMENT", "BAD_KEY", "TOO_LARGE", "CONFLICT", "NOT_FOUND", "NOT_A_NUMBER",
  "OVERFLOW", "QUEUE_FULL", "STORAGE", "STOPPING", "COMPACTED",
]);
