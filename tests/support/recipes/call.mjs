// Calls a function of recipe.mjs with each list of arguments, read as JSON, and prints what it returned, as JSON.
import { readFileSync } from 'node:fs'
import * as recipe from './recipe.mjs'

const seconds = () => Math.floor(Date.now() / 1000)

// `expires`, where given, becomes a lifetime; signed again if meanwhile the second turned over.
function call(args, expires) {
  if (expires === null) return recipe[process.argv[2]](...args)
  for (;;) {
    const now = seconds()
    const made = recipe[process.argv[2]](...args, expires - now)
    if (seconds() === now) return made
  }
}

console.log(JSON.stringify(JSON.parse(readFileSync(0, 'utf8')).map(({ args, expires }) => call(args, expires))))
