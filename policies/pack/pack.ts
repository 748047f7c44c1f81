import { PolicyPack } from '@pulumi/policy';
import { DeployJudge } from './judge.ts';
import { resourcePolicy, stackPolicy } from './policies.ts';

/** Serves the pack to the Pulumi engine, whose address stands in the arguments of the process. */
export async function servePack(): Promise<void> {
  const judge = await DeployJudge.create();
  new PolicyPack('somagent', { policies: [resourcePolicy(judge), stackPolicy(judge)] });
}
