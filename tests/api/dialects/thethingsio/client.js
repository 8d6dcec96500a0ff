// A client of live updates, driven by lines of JSON: {"emit": [event, data]} or {"close": true} in, {"event", "data"} out.
// node client.js MODULE URL TRANSPORT[,TRANSPORT] (MODULE: socket.io-client-2 or socket.io-client-4, found by NODE_PATH)
const [, , module_name, url, transports] = process.argv
const io = require(module_name)
const socket = (io.io || io)(url, {transports: transports.split(","), reconnection: false, forceNew: true})
const say = (event, data) => process.stdout.write(JSON.stringify({event, data}) + "\n")

const on_any = (event, data) => say(event, data)
if (socket.onAny) socket.onAny(on_any)
else {
  const emit = socket.constructor.prototype.emit
  const inner = socket.onevent
  socket.onevent = function (packet) { on_any(...packet.data); inner.call(this, packet) }
}
socket.on("connect", () => say("connected", socket.io.engine.transport.name))
socket.io.engine && socket.io.engine.on && socket.io.engine.on("upgrade", (t) => say("upgraded", t.name))
socket.on("disconnect", (reason) => say("disconnected", reason))
socket.on("connect_error", (error) => say("refused", String(error.message || error)))

require("readline").createInterface({input: process.stdin}).on("line", (line) => {
  const told = JSON.parse(line)
  if (told.emit) socket.emit(...told.emit)
  if (told.transport) say("transport", socket.io.engine.transport.name)
  if (told.close) { socket.close(); process.exit(0) }
})
