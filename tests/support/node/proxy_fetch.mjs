// Gives Node 20 a global fetch that honours HTTPS_PROXY, as newer Nodes do by themselves. Loaded with --import, so that
// the recipe under test stays as published.
import http from 'node:http'
import { once } from 'node:events'
import tls from 'node:tls'

async function tunnel(proxy, target) {
  const authority = `${target.hostname}:${target.port || 443}`
  const request = http.request({ host: proxy.hostname, port: proxy.port, method: 'CONNECT', path: authority })
  request.end()
  const [response, socket] = await once(request, 'connect')
  if (response.statusCode !== 200) throw new TypeError(`CONNECT answered ${response.statusCode}`)
  const secure = tls.connect({ socket, servername: target.hostname })
  await once(secure, 'secureConnect')
  return secure
}

globalThis.fetch = async function fetch(input, { method = 'GET', headers = {}, body } = {}) {
  const target = new URL(input)
  const secure = await tunnel(new URL(process.env.HTTPS_PROXY), target)
  const request = http.request({
    createConnection: () => secure,
    method,
    path: target.pathname + target.search,
    headers: { host: target.host, connection: 'close', ...headers },
  })
  request.end(body)
  const [response] = await once(request, 'response')
  const chunks = []
  for await (const chunk of response) chunks.push(chunk)
  return new Response(chunks.length ? Buffer.concat(chunks) : null, { status: response.statusCode })
}
