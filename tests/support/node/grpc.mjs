// Two calls of gRPC with @grpc/grpc-js, and the status of a third: what is printed is JSON.
import grpc from '@grpc/grpc-js'

const [target, service, name] = process.argv.slice(2)
const options = name ? { 'grpc.ssl_target_name_override': name, 'grpc.default_authority': name } : {}
const client = new grpc.Client(target, grpc.credentials.createSsl(), options)
const same = (bytes) => bytes
const key = new grpc.Metadata()
key.set('authorization', `Bearer ${process.env.LAB_API_KEY}`)
const deadline = () => ({ deadline: Date.now() + 20_000 })
const path = (call) => `/${service}/${call}`

const unary = (call, message) =>
  new Promise((done) => {
    let behind = {}
    client
      .makeUnaryRequest(path(call), same, same, Buffer.from(message), key, deadline(), (error, answer) =>
        done(error ? { code: error.code, details: error.details, metadata: error.metadata.getMap() } : { answer: String(answer), behind }),
      )
      .on('status', (status) => Object.assign(behind, status.metadata.getMap()))
  })

const talk = (words) =>
  new Promise((done) => {
    const call = client.makeBidiStreamRequest(path('Talk'), same, same, key, deadline())
    const said = []
    call.on('error', (error) => done({ code: error.code, details: error.details }))
    call.on('end', () => done({ said }))
    call.on('data', (answer) => {
      said.push(String(answer))
      said.length < words.length ? call.write(Buffer.from(words[said.length])) : call.end()
    })
    call.write(Buffer.from(words[0]))
  })

console.log(
  JSON.stringify({ echo: await unary('Echo', 'hello'), talk: await talk(['one', 'two']), fail: await unary('Fail', '') }),
)
client.close()
