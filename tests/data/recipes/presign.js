import crypto from 'node:crypto'
const CONNECTION_ID = 'conn_your_id'
const SIGNING_SECRET = 'sk_your_secret'
function createPresignedUrl({ path, methods, paths, expiresIn }) {
const expires = expiresIn
? Math.floor(Date.now() / 1000) + expiresIn
: 0
const sortedMethods = [...methods].sort().join(',')
const sortedPaths = [...paths].sort().join(',')
const canonical = [
'PRESIGN-HMAC-SHA256',
CONNECTION_ID,
expires,
sortedMethods,
sortedPaths,
].join('\n')
const signature = crypto
.createHmac('sha256', SIGNING_SECRET)
.update(canonical)
.digest('hex')
const params = new URLSearchParams({
'X-Presign-Expires': String(expires),
'X-Presign-Methods': sortedMethods,
'X-Presign-Paths': sortedPaths,
'X-Presign-Signature': signature,
})
return `https://presign.click/api/proxy/${CONNECTION_ID}/${path}?${params}`
}
// Create a URL that allows POST to chat completions, expires in 1 hour
const url = createPresignedUrl({
path: 'v1/chat/completions',
methods: ['POST'],
paths: ['v1/chat/*'],
expiresIn: 3600,
})
// Use it
const res = await fetch(url, {
method: 'POST',
headers: { 'Content-Type': 'application/json' },
body: JSON.stringify({
model: 'gpt-4',
messages: [{ role: 'user', content: 'Hello' }]
})
})