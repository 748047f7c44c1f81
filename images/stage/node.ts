import { copyFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Stage } from './stage.ts';

/** Copies the Node.js binary that npm installed for this repository: the one that runs here also runs there. */
export async function stageNode({ folder, repository }: Stage): Promise<void> {
  copyFileSync(join(repository, 'node_modules/node/bin/node'), join(folder, 'node'));
}
