/** An indexer in a process of its own, to be killed. */
import { createPool, postgresVariables, readConfig, TenantDatabase } from '@somagent/kit';
import { z } from 'zod';
import { reindexSchema } from '../config.ts';
import type { Tables } from '../database.ts';
import { openIndex } from '../index-parts.ts';
import { Indexer } from '../indexer.ts';
import { quiet } from './database.ts';

const postgres = z.object(postgresVariables).parse(JSON.parse(process.env.TEST_POSTGRES ?? '{}'));
const environment = Object.fromEntries(Object.entries(postgres).map(([name, value]) => [name, String(value)]));
const { embeddings, vectors } = openIndex(readConfig(reindexSchema, { ...process.env, ...environment }), quiet);
const database = new TenantDatabase<Tables>(createPool(postgres, quiet));
new Indexer({ database, embeddings, vectors, log: quiet, batch: 4 }).start();
