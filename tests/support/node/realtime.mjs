// node realtime.mjs {ws|websocket}: the realtime client of the SDK, made from the environment.
import OpenAI from 'openai'
import { OpenAIRealtimeWebSocket } from 'openai/realtime/websocket'
import { OpenAIRealtimeWS } from 'openai/realtime/ws'
import { WebSocket } from 'undici'

globalThis.WebSocket ??= WebSocket
const client = new OpenAI({ dangerouslyAllowBrowser: true })
const Kind = process.argv[2] === 'ws' ? OpenAIRealtimeWS : OpenAIRealtimeWebSocket
const realtime = new Kind({ model: 'gpt-realtime', dangerouslyAllowBrowser: true }, client)
const failed = setTimeout(() => process.exit(9), 10_000)
let text = ''
realtime.on('session.created', () => realtime.send({ type: 'response.create' }))
realtime.on('response.output_text.delta', ({ delta }) => (text += delta))
realtime.on('response.done', () => {
  console.log(text)
  clearTimeout(failed)
  realtime.close()
})
realtime.on('error', (error) => {
  console.log('error', error.message)
  process.exit(1)
})
