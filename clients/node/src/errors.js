/** The errors. Every error of this package is a VatnError. */

export class VatnError extends Error {
  constructor(message, options) {
    super(message, options);
    this.name = new.target.name;
  }
}

/** No answer in time. It is not known whether a write was done. */
export class Timeout extends VatnError {}

/** The peer that answered does not speak version 1 of the protocol. */
export class ProtocolError extends VatnError {}

/** An argument of the wrong kind; nothing was sent. */
export class InvalidArgument extends VatnError {}

/** A value that would not come back equal; nothing was sent. `path` names the part, `reason` says why. */
export class Unwritable extends InvalidArgument {
  constructor(path, reason, options) {
    super(`${path} cannot be stored: ${reason}`, options);
    this.path = path;
    this.reason = reason;
  }
}

/**
 * A value of another client that JavaScript has no equal for. `bytes` has its MessagePack, `reason` says why.
 *
 * It is thrown where it is the whole answer. Inside a larger answer (a page, a batch, a change, an entry) it stands in
 * the place of the value.
 */
export class Unreadable extends VatnError {
  constructor(bytes, reason, options) {
    super(`a value that cannot be read here: ${reason}`, options);
    this.bytes = bytes;
    this.reason = reason;
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
  "WRONG_TYPE", "OVERFLOW", "WRITE_QUEUE_FULL", "STORAGE", "STOPPING", "COMPACTED", "OTHER_HISTORY",
]);
