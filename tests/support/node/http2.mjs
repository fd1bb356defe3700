// Two requests over one connection of node's own HTTP/2 client, to the gateway or through it: JSON is printed.
import fs from 'node:fs'
import http from 'node:http'
import http2 from 'node:http2'
import tls from 'node:tls'

const [origin, target, headers, proxy] = process.argv.slice(2)
const ca = fs.readFileSync(process.env.NODE_EXTRA_CA_CERTS)
const { hostname, port, host } = new URL(origin)

const tunnel = () =>
  new Promise((done, fail) => {
    const { hostname: via, port: at } = new URL(proxy)
    http.request({ host: via, port: at, method: 'CONNECT', path: `${hostname}:${port}`, headers: { host } })
      .on('connect', (answer, socket) => (answer.statusCode === 200 ? done(socket) : fail(new Error(`${answer.statusCode}`))))
      .on('error', fail)
      .end()
  })

const secure = (socket) => tls.connect({ socket, servername: hostname, ALPNProtocols: ['h2'], ca })
const options = proxy ? { createConnection: ((socket) => () => secure(socket))(await tunnel()) } : { ca }
const session = http2.connect(origin, options)

const ask = () =>
  new Promise((done, fail) => {
    const found = { body: '', trailers: {} }
    session.request({ ':path': target, te: 'trailers', ...JSON.parse(headers) })
      .on('response', (head) => (found.status = head[':status']))
      .on('trailers', (trailers) => (found.trailers = { ...trailers }))
      .on('data', (data) => (found.body += data))
      .on('error', fail)
      .on('close', () => done(found))
      .end()
  })

console.log(JSON.stringify([await ask(), await ask()]))
session.close()
