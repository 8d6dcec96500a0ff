// What stands around a user's JavaScript: a frozen realm, and the way of values in and out as JSON text.
// Evaluates to drive(user, resultMax) -> run(callsText) -> resultsText. Read with its lines moved far down, so that a
// line number in a stack tells the user's own lines from these.
//
// One realm serves all messages of a script, so everything in it that can be reached is frozen: what one message
// leaves behind no other can see. Limits of time and memory are the engine's; natives that it does not interrupt are
// bounded here before they start.
"use strict";
(() => {
  const LIST_MAX = 1e6; // elements that an array function goes over in one call
  const SEARCH_MAX = 2e8; // text length times sought length
  const { parse, stringify } = JSON;
  const { apply, construct, ownKeys, defineProperty, getOwnPropertyDescriptor, getPrototypeOf } = Reflect;
  const { freeze } = Object;
  const { isArray } = Array;
  const { isView } = ArrayBuffer;
  const isFinite = Number.isFinite;
  const text = String;
  const RealDate = Date, RealRegExp = RegExp, RealError = Error, RealRangeError = RangeError, RealTypeError = TypeError;
  const { exec } = RegExp.prototype;
  const { includes } = String.prototype;
  const NULL = ["null"]; // arguments of includes, ready for apply
  const { join, map } = Array.prototype;
  const call = (f, self, ...args) => apply(f, self, args);
  let nowMs = 0;
  let wanted = null;

  // Time: a message's own clock, so that a test with a virtual clock gives the same result every time.
  const VirtualDate = function Date(...args) {
    if (!new.target) return text(new RealDate(nowMs));
    return construct(RealDate, args.length ? args : [nowMs], new.target);
  };
  defineProperty(VirtualDate, "prototype", { value: RealDate.prototype, writable: false });
  defineProperty(VirtualDate, "now", { value: () => nowMs });
  defineProperty(VirtualDate, "parse", { value: RealDate.parse });
  defineProperty(VirtualDate, "UTC", { value: RealDate.UTC });
  defineProperty(RealDate.prototype, "constructor", { value: VirtualDate });
  globalThis.Date = VirtualDate;

  // Bounds on natives that run uninterrupted.
  const lengthOf = (value) => {
    if (isArray(value) || isView(value)) return value.length;
    if (typeof value !== "object" || value === null) return 0;
    const own = getOwnPropertyDescriptor(value, "length");
    return own && typeof own.value === "number" ? own.value : own ? Infinity : 0;
  };
  const bounded = (name, holder) => {
    const native = holder[name];
    const guarded = { [name](...args) {
      if (lengthOf(this) > LIST_MAX) throw new RealRangeError(`${name} takes at most ${LIST_MAX} elements`);
      for (let i = 0; i < args.length; i++) {
        if (lengthOf(args[i]) > LIST_MAX) throw new RealRangeError(`${name} takes at most ${LIST_MAX} elements`);
      }
      return apply(native, this, args);
    } }[name];
    defineProperty(holder, name, { value: guarded });
  };
  for (const name of ["concat", "copyWithin", "fill", "join", "reverse", "shift", "slice", "sort", "splice", "toLocaleString",
    "toReversed", "toSorted", "toSpliced", "toString", "unshift", "with"]) bounded(name, Array.prototype);
  const flatten = (list, depth, into) => {
    if (lengthOf(list) > LIST_MAX) throw new RealRangeError(`flat takes at most ${LIST_MAX} elements`);
    for (let i = 0; i < list.length; i++) {
      if (!(i in list)) continue;
      if (depth >= 1 && isArray(list[i])) flatten(list[i], depth - 1, into);
      else into[into.length] = list[i];
    }
    return into;
  };
  defineProperty(Array.prototype, "flat", { value: function flat(depth = 1) { return flatten(this, depth, []); } });
  defineProperty(Array.prototype, "flatMap", { value: function flatMap(f, self) {
    return flatten(call(map, this, f, self), 1, []);
  } });
  for (const name of ["includes", "indexOf", "lastIndexOf", "replace", "replaceAll", "split"]) {
    const native = String.prototype[name];
    const guarded = { [name](sought, ...rest) {
      if (typeof sought !== "object" || sought === null) sought = sought === undefined ? sought : text(sought);
      else if (!(sought instanceof RealRegExp)) sought = text(sought);
      const subject = text(this);
      if (typeof sought === "string" && subject.length * sought.length > SEARCH_MAX) {
        throw new RealRangeError(`${name}: searching so long a text is too costly`);
      }
      return apply(native, subject, [sought, ...rest]);
    } }[name];
    defineProperty(String.prototype, name, { value: guarded });
  }

  // No code from text, nothing that blocks, nothing that runs later or outlives its message.
  const noCode = function Function() { throw new RealTypeError("code may not be made from text"); };
  const functions = [function () {}, function* () {}, async function () {}, async function* () {}].map(getPrototypeOf);
  for (const prototype of functions) defineProperty(prototype, "constructor", { value: noCode });
  for (const name of ["eval", "Function", "Proxy", "Atomics", "SharedArrayBuffer", "Promise", "WeakRef",
    "FinalizationRegistry", "queueMicrotask", "AsyncDisposableStack", "performance"]) delete globalThis[name];

  // A frozen prototype would forbid `this.name = …` on what inherits from it; these members allow it.
  const overridable = (holder, name) => {
    const own = getOwnPropertyDescriptor(holder, name);
    if (!own || !("value" in own)) return;
    const { value } = own;
    defineProperty(holder, name, {
      get() { return value; },
      set(to) {
        if (this === holder) throw new RealTypeError(`${name} is read-only`);
        defineProperty(this, name, { value: to, writable: true, enumerable: true, configurable: true });
      },
      enumerable: false,
      configurable: false,
    });
  };
  for (const name of ["constructor", "hasOwnProperty", "isPrototypeOf", "propertyIsEnumerable", "toLocaleString",
    "toString", "valueOf"]) overridable(Object.prototype, name);
  for (const kind of [Error, EvalError, RangeError, ReferenceError, SyntaxError, TypeError, URIError, InternalError]) {
    for (const name of ["constructor", "message", "name", "toString"]) overridable(kind.prototype, name);
  }

  const seen = new Set();
  const pending = [globalThis, noCode, RealDate, ...functions, [].values(), "".matchAll(/a/g), ""[Symbol.iterator](),
    new Map().values(), new Set().values(), (function* () {})(), (async function* () {})(),
    [].values().map((x) => x), Iterator.from({ next() {} }), getPrototypeOf(Int8Array), (async () => {})()];
  while (pending.length) {
    const value = pending.pop();
    if ((typeof value !== "object" && typeof value !== "function") || value === null || seen.has(value)) continue;
    seen.add(value);
    freeze(value);
    pending.push(getPrototypeOf(value));
    for (const key of ownKeys(value)) {
      const own = getOwnPropertyDescriptor(value, key);
      pending.push(own.value, own.get, own.set);
    }
  }

  // JSON text has null where a number is not finite: that must not pass for an answer.
  const findNotFinite = (value, path) => {
    if (typeof value === "number") return isFinite(value) ? "" : `${path} is ${value}, which is not a JSON number`;
    if (typeof value !== "object" || value === null || typeof value.toJSON === "function") return "";
    for (const key of ownKeys(value)) {
      if (typeof key !== "string" || (isArray(value) && key === "length")) continue;
      const found = findNotFinite(value[key], isArray(value) ? `${path}[${key}]` : path === "result" ? key : `${path}.${key}`);
      if (found) return found;
    }
    return "";
  };

  const describe = (thrown) => {
    if (!(thrown instanceof RealError)) {
      const said = typeof thrown === "object" && thrown !== null ? thrown.message ?? thrown.reason ?? stringify(thrown) : thrown;
      return [1, text(said), 0];
    }
    const lines = call(exec, /<input>:(\d{1,4}|10000)(?!\d)/, text(thrown.stack));
    const kind = text(thrown.name);
    const message = text(thrown.message);
    return [1, kind === "Error" || !message ? message || kind : `${kind}: ${message}`, lines ? +lines[1] : 0];
  };

  const now = freeze(() => nowMs);
  const retry = freeze((after_s, reason) => {
    if (after_s !== undefined && !isFinite(after_s)) throw new RealTypeError("retry takes seconds and a reason");
    wanted = [2, after_s ?? null, reason === undefined ? "" : text(reason)];
    throw new RealError("retry");
  });

  return (user, resultMax) => {
    const one = (given) => {
      wanted = null;
      nowMs = given[3];
      try {
        const result = user(given[0], given[1], given[2], now, retry);
        if (wanted) return stringify(wanted);
        if (result === true) return "[0,true]";
        if (result === false) return "[0,false]";
        const answer = stringify(result) ?? "null";
        if (wanted) return stringify(wanted);
        if (answer.length > resultMax) return stringify([1, `result is larger than ${resultMax} bytes`, 0]);
        if (apply(includes, answer, NULL)) {
          const found = findNotFinite(result, "result");
          if (found) return stringify([1, found, 0]);
        }
        return `[0,${answer}]`;
      } catch (thrown) {
        if (wanted) return stringify(wanted);
        // Out of memory: this realm is spent, so the host is to know.
        if (thrown === null || (thrown instanceof InternalError && thrown.message === "out of memory")) throw thrown;
        try {
          return stringify(describe(thrown));
        } catch {
          return '[1,"an error that cannot be shown",0]';
        }
      }
    };
    return (calls) => {
      const given = parse(calls);
      const results = [];
      for (let i = 0; i < given.length; i++) results[i] = one(given[i]);
      // Joined, not added: the binding cannot take a text that the engine keeps in pieces.
      return call(join, ["[", call(join, results, ","), "]"], "");
    };
  };
})()
