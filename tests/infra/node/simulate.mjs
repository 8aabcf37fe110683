// Evaluate requests against policies: a JSON list of simulations on stdin, a JSON list of results on stdout.
import { readFileSync } from 'node:fs'
import { runSimulation } from '@cloud-copilot/iam-simulate'

const results = []
for (const simulation of JSON.parse(readFileSync(0, 'utf8'))) {
  const told = await runSimulation(simulation, {})
  results.push(
    told.resultType === 'error'
      ? { result: 'Error', why: told.errors }
      : { result: told.overallResult, why: told.result?.ignoredContextKeys ?? [] }
  )
}
process.stdout.write(JSON.stringify(results))
