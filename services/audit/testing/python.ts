import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

const repository = fileURLToPath(new URL('../../../', import.meta.url));

/** A Python with exactly what the verifier asks for; made once and kept. */
export async function verifierPython(): Promise<string> {
  const script = join(repository, 'services/slm/scripts/venv.sh');
  const requirements = join(repository, 'services/audit/verifier/requirements.txt');
  const { stdout } = await promisify(execFile)('sh', [script, 'audit-verifier', requirements]);
  return join(stdout.trim(), 'bin/python');
}
