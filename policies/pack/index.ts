import { PolicyPack } from '@pulumi/policy';
import { DeployJudge } from './judge.ts';
import { resourcePolicy, stackPolicy } from './policies.ts';

const judge = await DeployJudge.create();
new PolicyPack('somagent', { policies: [resourcePolicy(judge), stackPolicy(judge)] });
