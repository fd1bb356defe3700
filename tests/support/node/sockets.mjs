// node sockets.mjs {ws|undici} URL HEADERS: says hello to an echo, prints what comes back.
import { WebSocket as Undici } from 'undici'
import WebSocket from 'ws'

const [kind, url, headers] = process.argv.slice(2)
const given = JSON.parse(headers)
const socket = kind === 'ws' ? new WebSocket(url, ['chat'], { headers: given }) : new (globalThis.WebSocket ?? Undici)(url, ['chat'])
const failed = setTimeout(() => process.exit(9), 10_000)
socket.onopen = () => socket.send('hello '.repeat(1000))
socket.onmessage = ({ data }) => {
  console.log('said', data.length, socket.protocol)
  socket.close(1000, 'done')
}
socket.onerror = (event) => {
  console.log('error', event.message ?? event.error?.message ?? '')
  process.exit(1) // undici tells of no close after a refusal
}
socket.onclose = ({ code }) => {
  console.log('closed', code)
  clearTimeout(failed)
  process.exit(code === 1000 ? 0 : 1)
}
